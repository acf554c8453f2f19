//! Requests as the services' own documentation shows them.

use egress_envelope::service::Body;

/// What the documentation of a service shows, and what it is: operation and recipients.
pub(super) struct Example {
    pub(super) service: &'static str,
    pub(super) request: &'static str,
    pub(super) body: (Body, &'static str),
    pub(super) is: &'static str,
    pub(super) to: &'static [&'static str],
}

const NONE: (Body, &str) = (Body::None, "");

pub(super) const EXAMPLES: &[Example] = &[
    // postmarkapp.com/developer/api/email-api
    Example {
        service: "postmark",
        request: "POST /email",
        body: (
            Body::Json,
            r#"{"From": "sender@example.com", "To": "receiver@example.com", "Cc": "copied@example.com",
                "Bcc": "blind-copied@example.com", "Subject": "Test", "Tag": "Invitation",
                "HtmlBody": "<b>Hello</b>", "TextBody": "Hello", "ReplyTo": "reply@example.com",
                "Headers": [{"Name": "CUSTOM-HEADER", "Value": "value"}], "TrackOpens": true,
                "Metadata": {"color": "blue", "client-id": "12345"}, "MessageStream": "outbound"}"#,
        ),
        is: "send",
        to: &[
            "receiver@example.com",
            "copied@example.com",
            "blind-copied@example.com",
        ],
    },
    Example {
        service: "postmark",
        request: "POST /email/batch",
        body: (
            Body::Json,
            r#"[{"From": "sender@example.com", "To": "receiver1@example.com", "Subject": "Postmark test #1",
                 "TextBody": "Hello dear Postmark user.", "MessageStream": "outbound"},
                {"From": "sender@example.com", "To": "receiver2@example.com", "Subject": "Postmark test #2",
                 "TextBody": "Hello dear Postmark user.", "MessageStream": "outbound"}]"#,
        ),
        is: "send-batch",
        to: &["receiver1@example.com", "receiver2@example.com"],
    },
    // postmarkapp.com/developer/api/templates-api
    Example {
        service: "postmark",
        request: "POST /email/withTemplate",
        body: (
            Body::Json,
            r#"{"TemplateId": 1234, "TemplateModel": {"user_name": "John Smith"}, "InlineCss": true,
                "From": "sender@example.com", "To": "receiver@example.com", "Tag": "Invitation",
                "ReplyTo": "reply@example.com"}"#,
        ),
        is: "send-template",
        to: &["receiver@example.com"],
    },
    Example {
        service: "postmark",
        request: "POST /email/batchWithTemplates",
        body: (
            Body::Json,
            r#"{"Messages": [{"TemplateAlias": "welcome", "TemplateModel": {}, "From": "sender@example.com",
                "To": "receiver1@example.com", "Bcc": "copy@example.com"},
                {"TemplateAlias": "welcome", "TemplateModel": {}, "From": "sender@example.com",
                "To": "receiver2@example.com"}]}"#,
        ),
        is: "send-template-batch",
        to: &[
            "receiver1@example.com",
            "receiver2@example.com",
            "copy@example.com",
        ],
    },
    // postmarkapp.com/developer/api/bulk-email
    Example {
        service: "postmark",
        request: "POST /email/bulk",
        body: (
            Body::Json,
            r#"{"From": "sender@example.com", "Subject": "This is a bulk email for {{FirstName}}",
                "TextBody": "Hi, {{FirstName}}", "MessageStream": "broadcast",
                "Messages": [{"To": "receiver1@example.com", "TemplateModel": {"FirstName": "A"}}]}"#,
        ),
        is: "send-bulk",
        to: &["receiver1@example.com"],
    },
    Example {
        service: "postmark",
        request: "GET /stats/outbound/opens/platforms",
        body: NONE,
        is: "stats-of-by",
        to: &[],
    },
    Example {
        service: "postmark",
        request: "GET /messages/outbound/opens",
        body: NONE,
        is: "opens",
        to: &[],
    },
    // resend.com/docs/api-reference/emails/send-email
    Example {
        service: "resend",
        request: "POST /emails",
        body: (
            Body::Json,
            r#"{"from": "Acme <onboarding@resend.dev>", "to": ["delivered@resend.dev"], "bcc": "b@example.com",
                "subject": "hello world", "html": "<p>it works!</p>", "reply_to": "onboarding@resend.dev"}"#,
        ),
        is: "send",
        to: &["delivered@resend.dev", "b@example.com"],
    },
    Example {
        service: "resend",
        request: "POST /emails/batch",
        body: (
            Body::Json,
            r#"[{"from": "Acme <onboarding@resend.dev>", "to": ["foo@gmail.com"], "subject": "hello world",
                 "html": "<h1>it works!</h1>"},
                {"from": "Acme <onboarding@resend.dev>", "to": ["bar@outlook.com"], "subject": "world hello",
                 "html": "<p>it works!</p>"}]"#,
        ),
        is: "send-batch",
        to: &["foo@gmail.com", "bar@outlook.com"],
    },
    Example {
        service: "resend",
        request: "GET /emails/4ef9a417-02e9-4d39-ad75-9611e0fcc33c",
        body: NONE,
        is: "email",
        to: &[],
    },
    // The mail_send example of the service's OpenAPI description.
    Example {
        service: "sendgrid",
        request: "POST /v3/mail/send",
        body: (
            Body::Json,
            r#"{"personalizations": [{"to": [{"email": "alex@example.com", "name": "Alex"},
                  {"email": "bola@example.com", "name": "Bola"}], "cc": [{"email": "charlie@example.com"}],
                  "bcc": [{"email": "dana@example.com"}]},
                 {"from": {"email": "sales@example.com"}, "to": [{"email": "ira@example.com"}]}],
                "from": {"email": "orders@example.com"}, "reply_to": {"email": "service@example.com"},
                "subject": "Your Example Order Confirmation", "content": [{"type": "text/html", "value": "x"}],
                "mail_settings": {"sandbox_mode": {"enable": false}}}"#,
        ),
        is: "send",
        to: &[
            "alex@example.com",
            "bola@example.com",
            "ira@example.com",
            "charlie@example.com",
            "dana@example.com",
        ],
    },
    // documentation.mailgun.com: sending over HTTP
    Example {
        service: "mailgun",
        request: "POST /v3/YOUR_DOMAIN_NAME/messages",
        body: (
            Body::Multipart,
            "from=Excited User <postmaster@YOUR_DOMAIN_NAME>&to=recipient-1@example.com&to=recipient-2@example.com&subject=Hello there!&text=Testing some Mailgun awesomeness!",
        ),
        is: "send",
        to: &["recipient-1@example.com", "recipient-2@example.com"],
    },
    // docs.aws.amazon.com/ses/latest/dg/send-an-email-using-sdk-programmatically.html
    Example {
        service: "ses",
        request: "POST /v2/email/outbound-emails",
        body: (
            Body::Json,
            r#"{"FromEmailAddress": "sender@example.com", "Destination": {"ToAddresses": ["recipient@example.com"],
                "BccAddresses": ["bcc@example.com"]}, "Content": {"Simple": {"Subject": {"Data": "x"}, "Body": {"Text": {"Data": "y"}}}}}"#,
        ),
        is: "send",
        to: &["recipient@example.com", "bcc@example.com"],
    },
    Example {
        service: "ses",
        request: "POST /v2/email/outbound-emails",
        body: (Body::Json, r#"{"Content": {"Raw": {"Data": "VG86IGE="}}}"#),
        is: "send",
        to: &["mime of Content/Raw/Data"],
    },
    // developers.google.com/workspace/gmail/api/guides/sending
    Example {
        service: "gmail",
        request: "POST /gmail/v1/users/me/messages/send",
        body: (Body::Json, r#"{"raw": "VG86IGE="}"#),
        is: "send",
        to: &["mime of raw"],
    },
    // learn.microsoft.com/graph/api/user-sendmail
    Example {
        service: "graph",
        request: "POST /v1.0/me/sendMail",
        body: (
            Body::Json,
            r#"{"message": {"subject": "Meet for lunch?", "body": {"contentType": "Text", "content": "x"},
                "toRecipients": [{"emailAddress": {"address": "frannis@contoso.com"}}],
                "ccRecipients": [{"emailAddress": {"address": "danas@contoso.com"}}]}, "saveToSentItems": "false"}"#,
        ),
        is: "send",
        to: &["frannis@contoso.com", "danas@contoso.com"],
    },
    Example {
        service: "graph",
        request: "POST /v1.0/me/messages/AAMkADA1MTAAAAqldOAAA=/forward",
        body: (
            Body::Json,
            r#"{"comment": "FYI", "toRecipients": [{"emailAddress": {"address": "fannyd@contoso.com", "name": "name"}}]}"#,
        ),
        is: "forward",
        to: &["fannyd@contoso.com"],
    },
    // api.slack.com/methods/chat.postMessage
    Example {
        service: "slack",
        request: "POST /api/chat.postMessage",
        body: (
            Body::Json,
            r#"{"channel": "C123ABC456", "text": "Hello world"}"#,
        ),
        is: "send-message",
        to: &["C123ABC456"],
    },
    Example {
        service: "slack",
        request: "POST /api/chat.postMessage",
        body: (Body::Form, "channel=C123ABC456&text=Hello"),
        is: "send-message",
        to: &["C123ABC456"],
    },
    // twilio.com/docs/messaging/api/message-resource
    Example {
        service: "twilio",
        request: "POST /2010-04-01/Accounts/ACXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXX/Messages.json",
        body: (
            Body::Form,
            "Body=Hi there&From=+15017122661&To=+15558675310",
        ),
        is: "send-message",
        to: &["+15558675310"],
    },
    // core.telegram.org/bots/api#making-requests
    Example {
        service: "telegram",
        request: "POST /bot123456:ABC-DEF1234ghIkl-zyx57W2v1u123ew11/sendMessage",
        body: (Body::Json, r#"{"chat_id": -100123, "text": "Hello"}"#),
        is: "send-message",
        to: &["-100123"],
    },
    // docs.discord.com/developers/resources/message
    Example {
        service: "discord",
        request: "POST /api/v10/channels/290926798999357250/messages",
        body: (Body::Json, r#"{"content": "Hello, World!", "tts": false}"#),
        is: "send-message",
        to: &["290926798999357250"],
    },
    // docs.stripe.com/api/payouts/create and transfers/create
    Example {
        service: "stripe",
        request: "POST /v1/payouts",
        body: (
            Body::Form,
            "amount=1100&currency=usd&destination=ba_1MtIhL2eZvKYlo2CAElKwKu2",
        ),
        is: "payout",
        to: &["ba_1MtIhL2eZvKYlo2CAElKwKu2"],
    },
    Example {
        service: "stripe",
        request: "POST /v1/transfers",
        body: (
            Body::Form,
            "amount=400&currency=usd&destination=acct_1MTfjCQ9PRzplEHM&transfer_group=ORDER_95",
        ),
        is: "transfer",
        to: &["acct_1MTfjCQ9PRzplEHM"],
    },
    // docs.github.com/rest/issues/issues#create-an-issue
    Example {
        service: "github",
        request: "POST /repos/octocat/Hello-World/issues",
        body: (
            Body::Json,
            r#"{"title": "Found a bug", "body": "x", "assignees": ["octocat"], "labels": ["bug"]}"#,
        ),
        is: "create-issue",
        to: &["octocat", "Hello-World"],
    },
    Example {
        service: "github",
        request: "GET /repos/octocat/Hello-World/contents/docs/a.md",
        body: NONE,
        is: "file",
        to: &[],
    },
    // developers.notion.com/reference/post-page
    Example {
        service: "notion",
        request: "POST /v1/pages",
        body: (
            Body::Json,
            r#"{"parent": {"data_source_id": "d9824bdc-8445-4327-be8b-5b47500af6ce"}, "properties": {}}"#,
        ),
        is: "create-page",
        to: &["d9824bdc-8445-4327-be8b-5b47500af6ce"],
    },
    // github.com/ethereum/execution-apis, src/eth/submit.yaml
    Example {
        service: "ethereum",
        request: "POST /",
        body: (
            Body::JsonRpc,
            r#"{"jsonrpc": "2.0", "id": 1, "method": "eth_sendTransaction", "params": [{"from": "0xb60e8dd61c5d32be8058bb8eb970870f07233155",
                "to": "0xd46e8dd67c5d32be8058bb8eb970870f07244567", "gas": "0x76c0", "value": "0x9184e72a"}]}"#,
        ),
        is: "send-transaction",
        to: &["transaction"],
    },
    Example {
        service: "ethereum",
        request: "POST /v3/0123456789abcdef",
        body: (
            Body::JsonRpc,
            r#"{"jsonrpc": "2.0", "id": 1, "method": "eth_sendRawTransaction", "params": ["0xf86b"]}"#,
        ),
        is: "send-raw-transaction",
        to: &["transaction"],
    },
    Example {
        service: "ethereum",
        request: "POST /",
        body: (
            Body::JsonRpc,
            r#"{"jsonrpc": "2.0", "id": 1, "method": "eth_sign", "params": []}"#,
        ),
        is: "",
        to: &[],
    },
];

/// Ways of the same services to send elsewhere or later, or to change the account.
pub(super) const UNLISTED: &[(&str, &str)] = &[
    ("postmark", "POST /webhooks"),
    ("postmark", "PUT /server"),
    ("postmark", "POST /servers"),
    ("postmark", "POST /senders"),
    ("postmark", "POST /triggers/inboundRules"),
    ("postmark", "POST /message-streams"),
    ("postmark", "POST /templates"),
    ("postmark", "PUT /templates/1234"),
    ("postmark", "PUT /messages/inbound/x/retry"),
    ("postmark", "POST /data-removals"),
    ("postmark", "POST /email/"),
    ("resend", "POST /webhooks"),
    ("resend", "POST /broadcasts"),
    ("resend", "POST /broadcasts/x/send"),
    ("resend", "POST /contacts"),
    ("resend", "POST /emails/x/share"),
    ("resend", "POST /api-keys"),
    ("sendgrid", "POST /v3/marketing/singlesends"),
    ("sendgrid", "POST /v3/user/webhooks/parse/settings"),
    ("sendgrid", "PATCH /v3/mail_settings/forward_bounce"),
    ("mailgun", "POST /v3/routes"),
    ("mailgun", "POST /v3/lists"),
    ("mailgun", "POST /v3/x/messages.mime"),
    ("ses", "POST /v2/email/identities"),
    ("ses", "POST /v2/email/outbound-custom-verification-emails"),
    (
        "gmail",
        "POST /gmail/v1/users/me/settings/forwardingAddresses",
    ),
    ("gmail", "POST /gmail/v1/users/me/settings/filters"),
    ("gmail", "PUT /gmail/v1/users/me/settings/autoForwarding"),
    ("gmail", "POST /upload/gmail/v1/users/me/messages/send"),
    ("graph", "POST /v1.0/me/mailFolders/inbox/messageRules"),
    ("graph", "POST /v1.0/subscriptions"),
    ("graph", "POST /v1.0/$batch"),
    ("graph", "POST /v1.0/me/events"),
    ("slack", "POST /api/chat.scheduleMessage"),
    ("slack", "POST /api/reminders.add"),
    ("slack", "POST /api/files.sharedPublicURL"),
    ("slack", "POST /api/oauth.v2.access"),
    (
        "twilio",
        "POST /2010-04-01/Accounts/AC1/IncomingPhoneNumbers/PN1.json",
    ),
    ("twilio", "POST /2010-04-01/Accounts.json"),
    ("telegram", "POST /bot1:A/setWebhook"),
    ("telegram", "POST /bot1:A/createChatInviteLink"),
    ("discord", "POST /api/v10/channels/1/webhooks"),
    ("discord", "POST /api/v10/webhooks/1/token"),
    ("discord", "POST /api/v10/channels/1/followers"),
    ("stripe", "POST /v1/webhook_endpoints"),
    ("stripe", "POST /v1/accounts/acct_1/external_accounts"),
    ("stripe", "POST /v1/accounts"),
    ("github", "POST /gists"),
    ("github", "POST /graphql"),
    ("github", "POST /repos/o/r/hooks"),
    ("github", "POST /repos/o/r/keys"),
    ("github", "PUT /repos/o/r/collaborators/u"),
    ("github", "POST /repos/o/r/transfer"),
    ("notion", "POST /v1/file_uploads"),
    ("notion", "POST /v1/oauth/token"),
];
