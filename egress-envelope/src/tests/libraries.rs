//! Requests as the services' own libraries write them: all pass.

use super::world::{FORM, JSON, all_pass, post, raw};

#[test]
fn heads() {
    let rows = [
        // resend-node and stripe-node say a type whatever the method is.
        (
            "a type without a body",
            "GET /get/1",
            "Content-Type: application/json\r\nAuthorization: Bearer own-token\r\n",
        ),
        (
            "a type of an empty body",
            "POST /form",
            "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 0\r\n",
        ),
        (
            "an empty body without a type",
            "POST /email",
            "Content-Length: 0\r\n",
        ),
        // octokit writes a file's path as one segment.
        ("octokit: a file", "GET /tail/src%2Fa%20b.rs", ""),
        ("octokit: a branch", "GET /tail/heads%2Ffeature%2Fx", ""),
        ("octokit: marks", "GET /tail/a%21%27%28%29%2A", ""),
        (
            "stripe",
            "GET /get/1?expand[0]=data.customer&created[gte]=1",
            "",
        ),
        (
            "graph",
            "GET /get/1?$select=subject,from&$top=10&$filter=a%20eq%20%27b%27",
            "",
        ),
        ("google", "GET /get/1?alt=json&prettyPrint=false", ""),
        ("a percent sign", "GET /get/1?q=100%", ""),
        (
            "stripe, twilio: a key and an empty word",
            "GET /get/1",
            "Authorization: Basic b3duLXRva2VuOg==\r\n",
        ),
        (
            "github: a key and a fixed word",
            "GET /get/1",
            "Authorization: Basic b3duLXRva2VuOngtb2F1dGgtYmFzaWM=\r\n",
        ),
        (
            "git: a fixed user",
            "GET /get/1",
            "Authorization: Basic eC1hY2Nlc3MtdG9rZW46b3duLXRva2Vu\r\n",
        ),
        (
            "fields of libraries",
            "GET /get/1",
            "X-Stripe-Client-User-Agent: {\"lang\":\"node\"}\r\nIdempotency-Key: a-b\r\nX-GitHub-Api-Version: 2022-11-28\r\nx-goog-api-client: gdcl/8 gl-node/22\r\nSdkVersion: graph-js/3\r\nX-Forwarded-For: 192.0.2.1\r\namz-sdk-request: attempt=1; max=3\r\n",
        ),
    ];
    all_pass(&rows.map(|(name, line, fields)| (name, raw(line, fields, b""))));
}

#[test]
fn bodies() {
    let mail = |rest: &str| {
        post(
            "/email",
            JSON,
            &format!(r#"{{"To":"a@own.example",{rest}}}"#),
        )
    };
    all_pass(&[
        (
            "pictures for two densities",
            mail(r#""Attachments":[{"Name":"logo@2x.png","Content":"aGk="}]"#),
        ),
        (
            "ids of parts",
            mail(r#""Attachments":[{"ContentID":"cid:image001.png@01DA1B2C.D3E4F5A6"}]"#),
        ),
        (
            "an answer",
            mail(
                r#""headers":{"In-Reply-To":"<CAF1@mail.evil.example>","References":"<a@evil.example> <b@evil.example>"}"#,
            ),
        ),
        (
            "a sentence",
            mail(r#""Model":{"help":"Write to b@own.example. Thanks a lot."}"#),
        ),
        (
            "quotes around it",
            mail(r#""Model":{"help":"“b@own.example” – ask"}"#),
        ),
        (
            "a comment behind it",
            mail(r#""Model":{"help":"b@own.example (Bob) knows"}"#),
        ),
        (
            "entities",
            mail(r#""Model":{"x":"&#8211; &#640; &#x400;"}"#),
        ),
        ("releases", mail(r#""Model":{"x":"react@18.2.0 node@22"}"#)),
        ("a tab", mail(r#""Subject":"a\tb""#)),
        (
            "slack: a form with JSON in it",
            post(
                "/post",
                FORM,
                "channel=C1&text=Hi&blocks=%5B%7B%22type%22%3A%22section%22%7D%5D&mrkdwn=true",
            ),
        ),
        (
            "twilio, stripe",
            post(
                "/form",
                FORM,
                "to=a%40own.example&MediaUrl=https%3A%2F%2Fx.example%2F1&metadata[a_b]=c&items[0][price]=p&expand[0]=x",
            ),
        ),
    ]);
}
