//! The whole verdict on a request: what it says by itself, and what there was before it.

use egress_envelope::{
    head::Head,
    judge::{Inspect, Judged, Mode, Reason, Refusal},
    shape::{Noted, Shape, sentence},
};

use super::shared::{Asked, Shared};

impl Shared {
    /// Judges a request. `body`: empty where it is not read. `refusals`: why it was refused before.
    pub(super) async fn verdict(
        &self,
        asked: &Asked,
        inspect: &Inspect,
        (head, body): (&Head, &[u8]),
        refusals: Vec<Refusal>,
    ) -> Judged {
        // A call has to be known before what it causes is judged.
        self.settle().await;
        let mut judged = {
            let ledger = self.ledger();
            let mut judged = inspect.body(head, body, &ledger);
            inspect.content(
                &self.finder,
                &asked.name,
                (head, body),
                &ledger,
                &mut judged,
            );
            judged
        };
        if !refusals.is_empty() {
            // What is said of a body that was not read means nothing; a secret in the head is one.
            judged.refusals.retain(is_secret);
            judged.refusals.splice(0..0, refusals);
        }
        let reports = inspect.mode == Mode::Report;
        self.shape(inspect, &mut judged, reports);
        // What is refused anyway takes nothing of what others may have.
        if judged.refusals.is_empty() || reports {
            let now = self.started.elapsed();
            let mut meters = self.meters();
            let meter = meters.entry(asked.name.clone()).or_default();
            let (over, again) = meter.count(&inspect.limits, judged.cost, now, reports);
            judged.refusals.extend(over);
            judged.again = again;
        }
        judged
    }

    /// What is new in a request is refused, or noted where it passes.
    fn shape(&self, inspect: &Inspect, judged: &mut Judged, reports: bool) {
        let Some(things) = judged.shape.take() else {
            return;
        };
        if judged.refusals.iter().any(is_secret) {
            // One of its names may be the secret, which is not written down.
            return;
        }
        let mut baseline = self.baseline();
        let (new, before) = baseline.new_of(&things);
        let operation = things.operation;
        let said = |thing: &String| sentence(thing, &operation, before, &self.version);
        let enforces = inspect.shape == Shape::Enforce;
        if enforces {
            judged.refusals.extend(new.iter().map(|thing| Refusal {
                reason: Reason::NewShape,
                place: Some(thing.clone()),
                value: Some(said(thing)),
            }));
        }
        // What was refused is nothing that a request may have, and where shapes hold nothing is
        // learned.
        if enforces || !judged.refusals.is_empty() && !reports {
            return;
        }
        let learned = baseline.learns(&operation);
        baseline.note(&operation, &new, &self.version);
        judged.operation.shape = Some(Box::new(Noted {
            operation,
            new,
            before,
            version: self.version.clone(),
            learned,
        }));
    }
}

fn is_secret(refusal: &Refusal) -> bool {
    refusal.reason == Reason::SecretInRequest
}
