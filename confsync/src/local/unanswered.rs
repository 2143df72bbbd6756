//! Look-ups that got no answer in time. With a resolver that is silent, each would cost its whole
//! deadline, and a confdir may make thousands of them: what was not answered is not asked again at
//! once. Any answer, also that there is no such name, shows that the resolver works. Pure.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// For how long what got no answer is not asked again: less than what did not render waits.
const PAUSE: Duration = Duration::from_secs(5);
/// So many in a row without an answer between them, and no other name is asked either.
const SILENT: u32 = 3;

/// What got no answer of late.
#[derive(Debug, Default)]
pub(super) struct UnansweredLookups {
    names: HashMap<String, Instant>,
    in_a_row: u32,
    last: Option<Instant>,
}

impl UnansweredLookups {
    /// Why `name` is not looked up now, if it is not.
    pub(super) fn refusal(&self, name: &str, now: Instant) -> Option<String> {
        let recent = |at: &Instant| now.saturating_duration_since(*at) < PAUSE;
        if self.in_a_row >= SILENT && self.last.as_ref().is_some_and(recent) {
            return Some(format!(
                "the resolver has not answered the last {} look-ups, and is asked again in a moment",
                self.in_a_row
            ));
        }
        self.names.get(name).filter(|at| recent(at)).map(|_| NO_ANSWER.to_owned())
    }

    /// The resolver has answered something.
    pub(super) fn note_answer(&mut self, name: &str) {
        self.in_a_row = 0;
        self.names.remove(name);
    }

    /// It has not.
    pub(super) fn note_silence(&mut self, name: &str, now: Instant) {
        self.names.retain(|_, at| now.saturating_duration_since(*at) < PAUSE);
        self.names.insert(name.to_owned(), now);
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.last = Some(now);
    }
}

/// A look-up has reached its deadline.
pub(super) const NO_ANSWER: &str = "no answer in time";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_resolver_is_not_asked_by_thousands() {
        let (mut lookups, now) = (UnansweredLookups::default(), Instant::now());
        for name in ["a", "b"] {
            assert_eq!(lookups.refusal(name, now), None);
            lookups.note_silence(name, now);
        }
        assert_eq!(lookups.refusal("a", now).as_deref(), Some(NO_ANSWER), "it was just asked");
        assert_eq!(lookups.refusal("c", now), None, "one zone may be slow, and others not");
        lookups.note_silence("c", now);
        let text = lookups.refusal("d", now).unwrap();
        assert!(text.contains("not answered the last 3 look-ups"), "{text}");
        // It is tried again, and an answer lets all of them pass.
        assert_eq!(lookups.refusal("d", now + PAUSE), None);
        lookups.note_answer("d");
        assert_eq!(lookups.refusal("e", now), None);
        lookups.note_silence("e", now + PAUSE);
        assert_eq!(lookups.names.len(), 1, "what is long ago is forgotten");
    }
}
