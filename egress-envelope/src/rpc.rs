//! Calls in JSON-RPC 2.0, one or a batch.

use serde_json::Value;

/// Most calls of a batch.
const MAX_CALLS: usize = 1000;
/// What a call consists of (section 4 of the specification).
const KEYS: [&str; 4] = ["id", "jsonrpc", "method", "params"];

/// The calls of a document, each with its method.
pub(crate) fn calls(document: Value) -> Result<Vec<(String, Value)>, &'static str> {
    let calls = match document {
        Value::Array(calls) => calls,
        call => vec![call],
    };
    if calls.is_empty() || calls.len() > MAX_CALLS {
        return Err("a batch without a call, or with too many");
    }
    let own = |call: Value| Some((method(&call)?.to_owned(), call));
    let calls: Option<Vec<_>> = calls.into_iter().map(own).collect();
    calls.ok_or("a body that is no call in JSON-RPC 2.0")
}

/// The method of a call. `None`: it is none, or says more than a call does.
fn method(call: &Value) -> Option<&str> {
    let fields = call.as_object()?;
    let plain = |(key, value): (&String, &Value)| match key.as_str() {
        "id" => matches!(value, Value::Null | Value::Number(_) | Value::String(_)),
        "params" => matches!(value, Value::Array(_) | Value::Object(_)),
        key => KEYS.contains(&key),
    };
    let version = fields.get("jsonrpc").and_then(Value::as_str);
    if version != Some("2.0") || !fields.iter().all(plain) {
        return None;
    }
    fields.get("method")?.as_str()
}
