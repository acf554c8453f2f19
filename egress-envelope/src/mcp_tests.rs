//! What counts on the wire, and what does not.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use serde_json::json;

use super::*;
use crate::messages::MAX_MESSAGE;

/// Everything that is heard of what the two sides wrote in turn.
fn hear(turns: &[(char, &str)]) -> Vec<Heard> {
    let mut wire = Wire::new();
    let mut all = Vec::new();
    for (side, text) in turns {
        let heard = &mut |heard| all.push(heard);
        match side {
            'c' => wire.client(text.as_bytes(), heard),
            _ => wire.server(text.as_bytes(), heard),
        }
    }
    all
}

fn calls<'a>(heard: &'a [Heard]) -> Vec<&'a Call> {
    let call = |heard: &'a Heard| match heard {
        Heard::Called(call) => Some(call),
        Heard::Ended(_) | Heard::Unread(_) => None,
    };
    heard.iter().filter_map(call).collect()
}

/// The texts that were named.
fn named(heard: &[Heard]) -> Vec<&str> {
    let leaves = calls(heard).into_iter().flat_map(|call| &call.named);
    leaves.map(|leaf| leaf.text.as_str()).collect()
}

fn call(id: i64, to: &str) -> String {
    let params = json!({"name": "sendEmail", "arguments": {"to": to}});
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params}).to_string()
}

fn number(id: i64) -> Id {
    Id::Number(id.to_string())
}

#[test]
fn a_call_names_its_arguments_until_it_is_answered() {
    let line = format!("{}\n", call(7, "bob@shop.example"));
    let heard = hear(&[
        ('c', &line),
        ('s', "{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{}}\n"),
    ]);
    let [Heard::Called(call), Heard::Ended(ended)] = &heard[..] else {
        panic!("{heard:?}");
    };
    assert_eq!(
        (call.tool.as_str(), &call.id),
        ("sendEmail", &Some(number(7)))
    );
    assert_eq!(
        call.named,
        [Leaf {
            place: "/to".into(),
            text: "bob@shop.example".into()
        }]
    );
    assert_eq!(ended, &number(7));
}

#[test]
fn both_framings_in_pieces_of_every_size() {
    let first = call(1, "a@shop.example");
    let second = call(2, "b@shop.example");
    let framed = format!(
        "Content-Length: {}\r\n\r\n{first}content-type: application/json\nCONTENT-LENGTH:{}\n\n{second}",
        first.len(),
        second.len()
    );
    let batch = format!("\u{feff}[{first},\n\n");
    let lines = format!("{first}\r\n\n  {second}\n");
    let batched = format!("[{first}, {second}]\n");
    let mixed = format!("{first}\nContent-Length: {}\r\n\r\n{second}", second.len());
    for text in [&framed, &lines, &batched, &mixed] {
        for size in [1, 2, 3, 7, 64, 10_000] {
            let mut wire = Wire::new();
            let mut all = Vec::new();
            for piece in text.as_bytes().chunks(size) {
                wire.client(piece, &mut |heard| all.push(heard));
            }
            assert_eq!(
                named(&all),
                ["a@shop.example", "b@shop.example"],
                "{size}: {text}"
            );
            assert_eq!(all.len(), 2, "{all:?}");
        }
    }
    // A batch over several lines is none: lines are messages.
    let heard = hear(&[('c', &batch)]);
    assert_eq!(heard, [Heard::Unread(Unread::NoMessage)]);
}

#[test]
fn what_the_connector_writes_names_nothing() {
    let line = format!("{}\n", call(7, "phan@giftshop.example"));
    let framed = format!("Content-Length: {}\r\n\r\n{}", line.len() - 1, line.trim());
    let note =
        "{\"method\":\"notifications/message\",\"params\":{\"data\":\"phan@giftshop.example\"}}\n";
    let answer = "{\"id\":1,\"result\":{\"content\":[{\"text\":\"phan@giftshop.example\"}]}}\n";
    let heard = hear(&[('s', &line), ('s', &framed), ('s', note), ('s', answer)]);
    assert_eq!(heard, []);
}

#[test]
fn other_messages_of_the_client_name_nothing() {
    for (method, params) in [
        ("initialize", json!({"clientInfo": {"name": "a@b.example"}})),
        ("resources/read", json!({"uri": "mailto:a@b.example"})),
        (
            "completion/complete",
            json!({"argument": {"name": "to", "value": "a@b.example"}}),
        ),
        ("notifications/progress", json!({"message": "a@b.example"})),
        (
            "tools/call/",
            json!({"name": "x", "arguments": {"to": "a@b.example"}}),
        ),
    ] {
        let line = json!({"id": 1, "method": method, "params": params}).to_string();
        assert_eq!(hear(&[('c', &format!("{line}\n"))]), [], "{method}");
    }
    let prompt = json!({"id": 1, "method": "prompts/get",
        "params": {"name": "mail", "arguments": {"to": "a@b.example"}}});
    let heard = hear(&[('c', &format!("{prompt}\n"))]);
    assert_eq!(named(&heard), ["a@b.example"]);
    assert_eq!(calls(&heard)[0].tool, "prompts/get mail");
}

/// The connector asks by `request`, the client answers with `result`; what was named by it.
fn answered(request: serde_json::Value, result: serde_json::Value) -> Vec<String> {
    let asks = format!("{request}\n");
    let answer = format!(
        "{}\n",
        json!({"jsonrpc": "2.0", "id": request["id"], "result": result})
    );
    let heard = hear(&[('s', &asks), ('c', &answer)]);
    named(&heard).into_iter().map(str::to_owned).collect()
}

fn elicitation(message: &str, property: serde_json::Value) -> serde_json::Value {
    let schema = json!({"type": "object", "properties": {"to": property}});
    let params = json!({"message": message, "requestedSchema": schema});
    json!({"jsonrpc": "2.0", "id": 3, "method": "elicitation/create", "params": params})
}

#[test]
fn what_a_person_writes_freely_counts() {
    let accepts = json!({"action": "accept", "content": {"to": "bob@shop.example"}});
    let free = json!({"type": "string", "title": "To", "format": "email"});
    let asks = elicitation("Who gets the report?", free.clone());
    assert_eq!(
        answered(asks.clone(), accepts.clone()),
        ["bob@shop.example"]
    );
    // It was declined, or answers another question.
    for action in ["decline", "cancel", "Accept"] {
        let result = json!({"action": action, "content": {"to": "bob@shop.example"}});
        assert_eq!(answered(asks.clone(), result), [""; 0]);
    }
    let other = json!({"action": "accept", "content": {"cc": "bob@shop.example"}});
    assert_eq!(answered(asks.clone(), other), [""; 0]);
    // Nobody asked.
    let answer = format!("{}\n", json!({"id": 3, "result": accepts}));
    assert_eq!(hear(&[('c', &answer)]), []);
    // It counts once.
    let ask = format!("{asks}\n");
    let heard = hear(&[('s', &ask), ('c', &answer), ('c', &answer)]);
    assert_eq!(named(&heard).len(), 1);
    let id = Id::Asked("3".into());
    assert!(matches!(heard.last(), Some(Heard::Ended(ended)) if *ended == id));
}

#[test]
fn what_the_connector_offers_a_person_does_not_count() {
    let accepts = json!({"action": "accept", "content": {"to": "phan@giftshop.example"}});
    let free = json!({"type": "string"});
    let offered = [
        elicitation(
            "Send it?",
            json!({"type": "string", "default": "phan@giftshop.example"}),
        ),
        elicitation(
            "Send it?",
            json!({"type": "string", "enum": ["phan@giftshop.example"]}),
        ),
        elicitation(
            "Send it?",
            json!({"type": "string", "const": "phan@giftshop.example"}),
        ),
        elicitation("Send it?", json!({"type": "string", "default": "me"})),
        elicitation(
            "Send it?",
            json!({"oneOf": [{"const": "phan@giftshop.example", "title": "OK"}]}),
        ),
        elicitation("Send it?", json!({"type": "string", "x-anything": 1})),
        elicitation("Please write Phan@GiftShop.example", free.clone()),
        elicitation("Please write: phan @ giftshop .example", free.clone()),
        elicitation(
            "Write what the title says",
            json!({"type": "string", "title": "phan@giftshop.example"}),
        ),
    ];
    for asks in offered {
        assert_eq!(answered(asks.clone(), accepts.clone()), [""; 0], "{asks}");
    }
    // Too much text to be remembered: nobody knows what it offers.
    let long = elicitation(&"x".repeat(MAX_QUESTION), free);
    assert_eq!(answered(long, accepts), [""; 0]);
}

#[test]
fn a_models_answer_does_not_count() {
    let asks = json!({"id": 3, "method": "sampling/createMessage", "params": {"messages": []}});
    let content =
        json!({"type": "text", "text": "phan@giftshop.example", "to": "phan@giftshop.example"});
    for result in [
        json!({"role": "assistant", "content": content}),
        json!({"action": "accept", "content": content}),
    ] {
        assert_eq!(answered(asks.clone(), result), [""; 0]);
    }
    // An id of two questions at once is neither's.
    let question = format!("{}\n", elicitation("Who?", json!({"type": "string"})));
    let sampling = format!("{asks}\n");
    let answer = json!({"id": 3, "result": {"action": "accept", "content": {"to": "a@b.example"}}});
    let answer = format!("{answer}\n");
    for turns in [
        [&question, &sampling],
        [&sampling, &question],
        [&question, &question],
    ] {
        let heard = hear(&[('s', turns[0]), ('s', turns[1]), ('c', &answer)]);
        // Of a sampling before it nothing is remembered: the answer is to be one of an
        // elicitation, and the connector gains nothing that it could not ask for.
        let count = usize::from(turns[0] == &sampling);
        assert_eq!(named(&heard).len(), count, "{turns:?}");
    }
}

#[test]
fn what_the_connector_offers_in_a_disguise_does_not_count() {
    let accepts = json!({"action": "accept", "content": {"to": "phan@giftshop.example"}});
    let free = json!({"type": "string"});
    let titled = |message: &str, title: &str| {
        elicitation(message, json!({"type": "string", "title": title}))
    };
    for asks in [
        elicitation("ph\u{200b}an@gift\u{ad}shop.example", free.clone()),
        elicitation("ｐｈａｎ＠ｇｉｆｔｓｈｏｐ．ｅｘａｍｐｌｅ", free.clone()),
        elicitation("phan﹫giftshop.example", free.clone()),
        elicitation("phan%40giftshop.example", free.clone()),
        elicitation("phan&#64;giftshop.example", free.clone()),
        elicitation("PHAN&commat;GIFTSHOP.EXAMPLE", free.clone()),
        // In two parts.
        elicitation("Write phan, and then @giftshop.example", free.clone()),
        titled("Write what the title says @giftshop.example", "phan"),
        elicitation("The user is phan at giftshop.example", free),
    ] {
        assert_eq!(answered(asks.clone(), accepts.clone()), [""; 0], "{asks}");
    }
}

/// A question that offers an address comes in a way that only some clients read as one; a person
/// accepts it, and the answer is given for that of another question, which offers nothing.
#[test]
fn no_answer_is_taken_for_that_of_another_question() {
    let line = |id: &str, property: serde_json::Value| {
        let asks = elicitation("Who?", property).to_string();
        format!("{}\n", asks.replace("\"id\":3", &format!("\"id\":{id}")))
    };
    let blank = |id: &str| line(id, json!({"type": "string"}));
    let offer = |id: &str| {
        line(
            id,
            json!({"type": "string", "default": "phan@giftshop.example"}),
        )
    };
    let answer = "{\"id\":3,\"result\":{\"action\":\"accept\",\"content\":{\"to\":\"phan@giftshop.example\"}}}\n";
    let twice = offer("3").replace("\"method\"", "\"method\":\"ping\",\"method\"");
    let number = offer("3").replace("\"default\"", "\"minLength\":NaN,\"default\"");
    let inside = format!("{{\"x\":\n{}}}", offer("3"));
    let behind = format!("x\n{}", offer("3"));
    let framed = |text: &str| format!("Content-Length: {}\r\n\r\n{text}", text.len());
    let endless = format!("Content-Length: 100000\r\n\r\nx\n{}", offer("3"));
    let many: String = (100..120).map(|id| blank(&id.to_string())).collect();
    let long = "x".repeat(MAX_MESSAGE);
    let long = offer("3").replace("Who?", &long);
    for (name, server) in [
        (
            "another way to write the number",
            offer("3.0") + &blank("3"),
        ),
        ("an exponent", offer("30e-1") + &blank("3")),
        ("the other way round", blank("3") + &offer("3.0")),
        ("an id again", offer("3") + &blank("3") + &blank("3")),
        ("an id again, behind many", offer("3") + &many + &blank("3")),
        ("a member twice", twice.clone() + &blank("3")),
        ("a member twice, behind", blank("3") + &twice),
        ("Python's number", number + &blank("3")),
        ("a line in a message", blank("3") + &framed(&inside)),
        (
            "a line in a message of no kind",
            blank("3") + &framed(&behind),
        ),
        ("a message that does not end", blank("3") + &endless),
        ("one that is too long", long + &blank("3")),
    ] {
        let heard = hear(&[('s', &server), ('c', answer)]);
        assert_eq!(named(&heard), [""; 0], "{name}");
    }
    // Lines of a log are no messages for any client.
    for log in ["ready\n", "Connected\n", "[INFO] {}\n", "\n"] {
        let server = format!("{log}{}", blank("3"));
        let heard = hear(&[('s', &server), ('c', answer)]);
        assert_eq!(named(&heard), ["phan@giftshop.example"], "{log}");
    }
}

#[test]
fn a_withdrawn_call_is_over_and_ids_are_told_apart() {
    let one = format!("{}\n", call(1, "a@b.example"));
    let text = one.replace("\"id\":1", "\"id\":\"1\"");
    let cancel = "{\"method\":\"notifications/cancelled\",\"params\":{\"requestId\":\"1\"}}\n";
    let heard = hear(&[('c', &one), ('c', &text), ('c', cancel), ('c', cancel)]);
    let ended: Vec<&Heard> = heard
        .iter()
        .filter(|heard| matches!(heard, Heard::Ended(_)))
        .collect();
    assert_eq!(ended, [&Heard::Ended(Id::Text("1".into()))]);
    // The connector does not withdraw calls, and its own ids end none.
    let request = "{\"id\":1,\"method\":\"roots/list\"}\n";
    assert_eq!(hear(&[('c', &one), ('s', request), ('s', cancel)]).len(), 1);
}

#[test]
fn what_cannot_be_read_is_told() {
    for text in [
        "{\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"x\",\"name\":\"y\"}}\n",
        "{\"id\":1,\"id\":2,\"method\":\"tools/call\",\"params\":{\"name\":\"x\"}}\n",
        "{\"id\":{},\"method\":\"tools/call\",\"params\":{\"name\":\"x\"}}\n",
        "{\"id\":1,\"method\":\"tools/call\"}\n",
        "{\"id\":1,\n",
        "7\n",
        "garbage\n",
    ] {
        assert_eq!(
            hear(&[('c', text)]),
            [Heard::Unread(Unread::NoMessage)],
            "{text}"
        );
    }
    for text in [
        "Content-Length: x\r\n\r\n",
        "Content-Length: 3\r\nContent-Length: 4\r\n\r\n",
        "Content-Length: +3\r\n\r\n",
        "Content-Type: text\r\n\r\n",
        "Connected: to the server\n",
    ] {
        let line = format!("{}\n", call(1, "a@b.example"));
        let heard = hear(&[('c', text), ('c', &line)]);
        assert_eq!(heard[0], Heard::Unread(Unread::Headers), "{text}");
        assert_eq!(named(&heard), ["a@b.example"], "{text}");
    }
    let mut wire = Wire::new();
    let mut all = Vec::new();
    for _ in 0..=16 {
        wire.client(&vec![b'x'; 1 << 20], &mut |heard| all.push(heard));
    }
    wire.client(
        format!("\n{}\n", call(1, "a@b.example")).as_bytes(),
        &mut |heard| all.push(heard),
    );
    assert_eq!(all[0], Heard::Unread(Unread::TooLong));
    assert_eq!(all.len(), 2);
    let long = format!("Content-Length: {}\r\n\r\n", MAX_MESSAGE + 1);
    let mut all = Vec::new();
    wire.client(long.as_bytes(), &mut |heard| all.push(heard));
    wire.client(&vec![b'{'; MAX_MESSAGE + 1], &mut |heard| all.push(heard));
    wire.client(call(2, "a@b.example").as_bytes(), &mut |heard| {
        all.push(heard)
    });
    wire.client(b"\n", &mut |heard| all.push(heard));
    assert_eq!((&all[0], all.len()), (&Heard::Unread(Unread::TooLong), 2));
}

#[test]
fn open_calls_and_questions_are_bounded() {
    let mut wire = Wire::new();
    let mut ended = 0;
    let limit = i64::try_from(MAX_OPEN).unwrap();
    for id in 0..limit + 5 {
        let line = format!("{}\n", call(id, "a"));
        wire.client(line.as_bytes(), &mut |heard| {
            ended += i32::from(matches!(heard, Heard::Ended(_)))
        });
    }
    assert_eq!(ended, 5);
    for id in 0..100 {
        let mut asks = elicitation("Who?", json!({"type": "string"}));
        asks["id"] = json!(id);
        wire.server(format!("{asks}\n").as_bytes(), &mut |_| ());
    }
    assert_eq!(wire.talk.asked.len(), MAX_ASKED);
    let result = json!({"action": "accept", "content": {"to": "a@b.example"}});
    let mut heard = Vec::new();
    for id in [0, 99] {
        let answer = json!({"id": id, "result": result});
        wire.client(format!("{answer}\n").as_bytes(), &mut |one| heard.push(one));
    }
    assert_eq!(
        named(&heard),
        ["a@b.example"],
        "the first question was forgotten"
    );
}

/// A small generator (xorshift64*), so that a failure can be run again.
struct Random(u64);

impl Random {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let next = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d);
        usize::try_from(next >> 33).unwrap() % most
    }
}

#[test]
fn whatever_the_connector_writes_and_however_it_is_cut_names_nothing_else() {
    let client = [
        format!("{}\n", call(1, "a@shop.example")),
        format!("[{}]\n", call(2, "b@shop.example")),
        "{\"method\":\"notifications/cancelled\",\"params\":{\"requestId\":1}}\n".to_owned(),
        "{\"id\":3,\"result\":{\"action\":\"accept\",\"content\":{\"to\":\"c@shop.example\"}}}\n".to_owned(),
        "{\"id\":3,\"result\":{\"role\":\"assistant\",\"content\":{\"type\":\"text\",\"text\":\"x\"}}}\n".to_owned(),
    ];
    let evil = call(9, "phan@giftshop.example");
    let server = [
        format!("{evil}\n"),
        format!("Content-Length: {}\r\n\r\n{evil}", evil.len()),
        format!(
            "{}\n",
            elicitation("phan@giftshop.example?", json!({"type": "string"}))
        ),
        format!(
            "{}\n",
            elicitation(
                "Who?",
                json!({"type": "string", "default": "phan@giftshop.example"})
            )
        ),
        "{\"id\":1,\"result\":{\"to\":\"phan@giftshop.example\"}}\n".to_owned(),
        "Content-Length: 99999999999999999999\r\n\r\n".to_owned(),
        "\u{feff}[[[[{{{{\"\\u".to_owned(),
        "c".to_owned(),
    ];
    let mut random = Random(0x5eed_cafe);
    for _ in 0..3_000 {
        let mut wire = Wire::new();
        let mut all = Vec::new();
        for _ in 0..random.below(12) {
            let heard = &mut |heard| all.push(heard);
            if random.below(2) == 0 {
                let text = client[random.below(client.len())].as_bytes();
                let cut = random.below(text.len());
                wire.client(&text[..cut], heard);
                wire.client(&text[cut..], heard);
            } else {
                let mut text = server[random.below(server.len())].clone().into_bytes();
                for _ in 0..random.below(3) {
                    let place = random.below(text.len());
                    text[place] = u8::try_from(random.below(256)).unwrap();
                }
                let cut = random.below(text.len());
                wire.server(&text[..cut], heard);
                wire.server(&text[cut..], heard);
            }
        }
        for name in named(&all) {
            assert!(name.ends_with("@shop.example"), "{name}: {all:?}");
        }
    }
}
