//! What the DNS proxy tells the rest of the agent about the network: lines for the operator,
//! and that it is time to ask for names again.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use super::upstream::UpstreamError;

/// Lines that may wait.
const WAITING: usize = 256;
/// Names in a row that servers fail to resolve although they answer, before it is said.
const ERRORS: u32 = 3;
/// Shortest time between two lines that servers do not answer.
const QUIET: Duration = Duration::from_secs(60);

/// The way from who asks name servers to who hears of it.
#[derive(Debug)]
pub struct News {
    lines: mpsc::Sender<String>,
    waiting: tokio::sync::Mutex<mpsc::Receiver<String>>,
    again: watch::Sender<()>,
}

impl Default for News {
    fn default() -> Self {
        let (lines, waiting) = mpsc::channel(WAITING);
        Self {
            lines,
            waiting: tokio::sync::Mutex::new(waiting),
            again: watch::Sender::new(()),
        }
    }
}

impl News {
    /// The next line for the operator. Safe to cancel.
    pub async fn line(&self) -> String {
        match self.waiting.lock().await.recv().await {
            Some(line) => line,
            // Not while this lives, which holds a sender.
            None => std::future::pending().await,
        }
    }

    /// Sees when names should be asked for again.
    pub fn again(&self) -> watch::Receiver<()> {
        self.again.subscribe()
    }

    pub(super) fn say(&self, line: String) {
        // One that finds no room says what those before it say.
        let _full = self.lines.try_send(line);
    }

    /// It is time to ask for names again.
    pub fn ask_again(&self) {
        self.again.send_replace(());
    }
}

/// Whether some servers answer; says so when it changes, and not more often than is useful.
#[derive(Debug, Default)]
pub(super) struct Health(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    errors: u32,
    /// Since when they do not, as far as that was said.
    down: Option<Instant>,
    said: Option<Instant>,
}

impl Health {
    /// Takes note of how a question ended. `whose` names the servers in a line.
    pub(super) fn note<T>(
        &self,
        result: &Result<T, UpstreamError>,
        whose: &str,
        news: &News,
        now: Instant,
    ) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let error = match result {
            Ok(_) => {
                state.errors = 0;
                if let Some(since) = state.down.take() {
                    let seconds = now.duration_since(since).as_secs();
                    news.say(format!("{whose} answer again, after {seconds} s"));
                    news.ask_again();
                }
                return;
            }
            Err(error) => error,
        };
        state.errors = state.errors.saturating_add(1);
        let certain = matches!(error, UpstreamError::NoAnswer(_)) || state.errors >= ERRORS;
        let recent = state
            .said
            .is_some_and(|said| now.duration_since(said) < QUIET);
        if certain && state.down.is_none() && !recent {
            (state.down, state.said) = (Some(now), Some(now));
            news.say(format!(
                "{whose} do not answer: permitted names do not resolve until they do, or others \
                 are named there ({error})"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(news: &News) -> Vec<String> {
        let mut waiting = news
            .waiting
            .try_lock()
            .unwrap_or_else(|error| unreachable!("{error}"));
        std::iter::from_fn(|| waiting.try_recv().ok()).collect()
    }

    #[test]
    fn once_that_they_are_gone_and_once_that_they_are_back() {
        let (news, health) = (News::default(), Health::default());
        let gone = || {
            Err::<(), _>(UpstreamError::NoAnswer(
                "10.0.0.53:53: no answer".to_owned(),
            ))
        };
        let mut again = news.again();
        let mut now = Instant::now();
        for _ in 0..100 {
            health.note(&gone(), "the servers", &news, now);
        }
        let said = lines(&news);
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(
            said.iter()
                .all(|line| line.contains("10.0.0.53:53: no answer"))
        );
        now += Duration::from_secs(7);
        for _ in 0..100 {
            health.note(&Ok(()), "the servers", &news, now);
        }
        assert_eq!(lines(&news), ["the servers answer again, after 7 s"]);
        assert!(again.has_changed().unwrap_or(false));
        again.mark_unchanged();
        // They come and go: no flood.
        for _ in 0..100 {
            health.note(&gone(), "the servers", &news, now);
            health.note(&Ok(()), "the servers", &news, now);
        }
        assert_eq!(lines(&news), Vec::<String>::new());
        now += QUIET;
        health.note(&gone(), "the servers", &news, now);
        assert_eq!(lines(&news).len(), 1);
    }

    #[test]
    fn one_name_that_fails_is_no_news() {
        let (news, health) = (News::default(), Health::default());
        let error = || Err::<(), _>(UpstreamError::Failed("SERVFAIL".to_owned()));
        let now = Instant::now();
        for _ in 0..5 {
            health.note(&error(), "the servers", &news, now);
            health.note(&error(), "the servers", &news, now);
            health.note(&Ok(()), "the servers", &news, now);
        }
        assert_eq!(lines(&news), Vec::<String>::new());
        for _ in 0..5 {
            health.note(&error(), "the servers", &news, now);
        }
        assert_eq!(lines(&news).len(), 1);
    }
}
