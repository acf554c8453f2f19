//! Limits, against a log of everything that passed.

use std::time::Duration;

use super::{Cost, Meter, Rate, Span};
use crate::judge::{Limits, Reason};

fn limits(requests: Option<Rate>, recipients: Option<Rate>, bytes: Option<Rate>) -> Limits {
    Limits {
        body: 1 << 20,
        requests,
        recipients,
        bytes,
    }
}

fn rate(most: u64, per: Span) -> Option<Rate> {
    Some(Rate { most, per })
}

fn passes(meter: &mut Meter, limits: &Limits, cost: Cost, at: u64) -> bool {
    let (over, _) = meter.count(limits, cost, Duration::from_millis(at), false);
    over.is_empty()
}

#[test]
fn a_burst_at_an_edge_finds_no_room() {
    let limits = limits(rate(60, Span::Minute), None, None);
    let mut meter = Meter::default();
    let one = Cost::default();
    // 60 in the last moment of a minute, and 60 in the first of the next one.
    let passed =
        |meter: &mut Meter, at| (0..60).filter(|_| passes(meter, &limits, one, at)).count();
    assert_eq!(passed(&mut meter, 59_999), 60);
    assert_eq!(passed(&mut meter, 60_000), 0);
    assert_eq!(passed(&mut meter, 119_998), 0);
    // And when the minute is over, and the slot with it, there is room for all of them.
    assert_eq!(passed(&mut meter, 121_000), 60);
}

/// Against a log: never more than the limit in any stretch of its length, and everything that a
/// limit with 61 slots for 60 permits.
#[test]
fn no_stretch_of_time_has_more() {
    for (span, length) in Span::ALL
        .into_iter()
        .zip([1_000, 60_000, 3_600_000, 86_400_000])
    {
        let limits = limits(rate(20, span), None, None);
        let (mut meter, mut log, mut now, mut seed) = (Meter::default(), Vec::new(), 0_u64, 7_u64);
        for _ in 0..20_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (step, amount) = (seed >> 33, 1 + (seed >> 20) % 5);
            now += step % (length / 5);
            let cost = Cost {
                requests: amount,
                ..Cost::default()
            };
            let within = |length: u64| -> u64 {
                let in_time = |(at, _): &&(u64, u64)| now - at <= length;
                log.iter()
                    .rev()
                    .take_while(in_time)
                    .map(|(_, amount)| *amount)
                    .sum()
            };
            let (strict, lax) = (within(length + length / 20), within(length));
            let passed = passes(&mut meter, &limits, cost, now);
            assert!(!passed || lax + amount <= 20, "{span:?} at {now}");
            assert!(passed || strict + amount > 20, "{span:?} at {now}");
            if passed {
                log.push((now, amount));
            }
        }
        assert!(log.len() > 1_000);
    }
}

#[test]
fn what_is_refused_is_not_counted_and_what_is_reported_is() {
    let all = limits(
        rate(2, Span::Hour),
        rate(3, Span::Hour),
        rate(10, Span::Day),
    );
    let cost = |recipients, bytes| Cost {
        recipients,
        bytes,
        ..Cost::default()
    };
    let at = Duration::from_secs(5);
    let mut meter = Meter::default();
    let reasons = |(over, again): (Vec<crate::judge::Refusal>, Option<u64>)| -> (Vec<Reason>, _) {
        (over.into_iter().map(|it| it.reason).collect(), again)
    };
    assert_eq!(
        reasons(meter.count(&all, cost(4, 11), at, false)),
        (
            vec![Reason::OverRecipientLimit, Reason::OverByteLimit],
            None
        )
    );
    assert_eq!(reasons(meter.count(&all, cost(3, 10), at, false)).0, []);
    // What takes nothing of a limit is not held up by it.
    assert_eq!(reasons(meter.count(&all, cost(0, 0), at, true)).0, []);
    let (over, again) = reasons(meter.count(&all, cost(1, 0), at, true));
    assert_eq!(over, [Reason::OverRequestLimit, Reason::OverRecipientLimit]);
    assert_eq!(again, Some(3_655));
    let later = Duration::from_secs(3_660);
    assert_eq!(reasons(meter.count(&all, cost(1, 0), later, false)).0, []);
}

#[test]
fn another_limit_knows_what_went_before() {
    let mut meter = Meter::default();
    let one = Cost::default();
    for _ in 0..50 {
        assert!(passes(
            &mut meter,
            &limits(rate(60, Span::Minute), None, None),
            one,
            1_000
        ));
    }
    assert!(!passes(
        &mut meter,
        &limits(rate(50, Span::Day), None, None),
        one,
        2_000
    ));
    assert!(passes(
        &mut meter,
        &limits(rate(51, Span::Day), None, None),
        one,
        2_000
    ));
}
