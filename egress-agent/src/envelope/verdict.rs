//! The whole verdict on a request: what it says by itself, and what there was before it.

use egress_envelope::{
    head::Head,
    judge::{Inspect, Judged, Mode, Refusal},
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
            judged.refusals = refusals;
        }
        let reports = inspect.mode == Mode::Report;
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
}
