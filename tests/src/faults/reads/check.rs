//! Judges what readers saw by what was written: revisions only grow, each picture was true at its
//! revision, a watch delivers every write once and in order, and in the end everybody knows the
//! last of them. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::truth::{Keys, Truth, Write};

/// What a reader saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seen {
    /// All keys of its trees at a revision.
    Picture {
        /// The revision.
        revision: u64,
        /// The keys.
        keys: Keys,
    },
    /// It began to watch what comes after a revision.
    Watching {
        /// The revision.
        after: u64,
    },
    /// A write, by that watch.
    Event(Write),
    /// The watch has delivered all up to a revision.
    Progress {
        /// The revision.
        revision: u64,
    },
    /// The watch ended, for this reason.
    Ended(String),
}

/// What one reader saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// The reader's name.
    pub reader: String,
    /// The trees that it reads.
    pub trees: Vec<String>,
    /// What it saw.
    pub seen: Seen,
}

/// What the readers saw so far, as far as the next observation is judged by it.
#[derive(Debug, Default)]
pub struct Checker {
    readers: BTreeMap<String, Reader>,
}

#[derive(Debug, Default)]
struct Reader {
    trees: Vec<String>,
    /// The highest revision of a picture.
    revision: u64,
    keys: Keys,
    /// Where the watch is, while there is one.
    watch: Option<Position>,
}

/// Everything before this revision was delivered, and so many writes of it.
#[derive(Debug, Clone, Copy)]
struct Position {
    revision: u64,
    writes: usize,
}

impl Checker {
    /// Judges one observation. The truth must know all writes up to its revision.
    ///
    /// # Errors
    /// What is wrong with it, with the reader's name.
    pub fn judge(&mut self, truth: &Truth, observation: &Observation) -> Result<(), String> {
        let reader = self.readers.entry(observation.reader.clone()).or_default();
        reader.trees.clone_from(&observation.trees);
        let judged = reader.judge(truth, &observation.seen);
        judged.map_err(|why| format!("reader `{}`: {why}", observation.reader))
    }

    /// Judges the end, when nothing is written any more: the last picture of each reader is that
    /// of the last write.
    ///
    /// # Errors
    /// Who has lost one.
    pub fn settled(&self, truth: &Truth) -> Result<(), String> {
        for (name, reader) in &self.readers {
            let last = truth.at(u64::MAX, &reader.trees).unwrap_or_default();
            if last != reader.keys {
                return Err(format!(
                    "reader `{name}` is at revision {} and {}",
                    reader.revision,
                    difference(&reader.keys, &last)
                ));
            }
        }
        Ok(())
    }

    /// The revision up to which nobody will be judged by the truth again.
    #[must_use]
    pub fn oldest(&self) -> u64 {
        let needs = |reader: &Reader| {
            let watch = reader.watch.map_or(u64::MAX, |at| at.revision.saturating_sub(1));
            reader.revision.min(watch)
        };
        self.readers.values().map(needs).min().unwrap_or_default()
    }
}

impl Reader {
    fn judge(&mut self, truth: &Truth, seen: &Seen) -> Result<(), String> {
        match seen {
            Seen::Picture { revision, keys } => self.picture(truth, *revision, keys),
            Seen::Watching { after } => {
                self.watch = Some(Position { revision: *after, writes: usize::MAX });
                Ok(())
            }
            Seen::Event(write) => self.event(truth, write),
            Seen::Progress { revision } => match self.next(truth) {
                Some(lost) if lost.revision <= *revision => {
                    Err(format!("complete up to {revision} without {lost:?}"))
                }
                _ => self.moved(Position { revision: *revision, writes: usize::MAX }),
            },
            Seen::Ended(_) => {
                self.watch = None;
                Ok(())
            }
        }
    }

    fn picture(&mut self, truth: &Truth, revision: u64, keys: &Keys) -> Result<(), String> {
        if revision < self.revision {
            return Err(format!("its revision fell from {} to {revision}", self.revision));
        }
        let Some(was) = truth.at(revision, &self.trees) else {
            return Err(format!("a picture of revision {revision}, which is forgotten"));
        };
        if was != *keys {
            return Err(format!("its picture of revision {revision} {}", difference(keys, &was)));
        }
        (self.revision, self.keys) = (revision, keys.clone());
        Ok(())
    }

    fn event(&mut self, truth: &Truth, write: &Write) -> Result<(), String> {
        match self.next(truth) {
            Some(next) if next == write => {}
            next => return Err(format!("got {write:?} where {next:?} is the next write")),
        }
        let at = self.watch.filter(|at| at.revision == write.revision && at.writes < usize::MAX);
        let writes = at.map_or(1, |at| at.writes + 1);
        // What the events add up to is judged like a picture, in the end.
        match &write.value {
            Some(value) => self.keys.insert(write.key.clone(), value.clone()),
            None => self.keys.remove(&write.key),
        };
        self.revision = self.revision.max(write.revision);
        self.moved(Position { revision: write.revision, writes })
    }

    fn moved(&mut self, to: Position) -> Result<(), String> {
        let Some(watch) = &mut self.watch else { return Err("an event without a watch".into()) };
        if to.revision >= watch.revision {
            *watch = to;
        }
        Ok(())
    }

    /// The write that the watch has to deliver next.
    fn next<'t>(&'t self, truth: &'t Truth) -> Option<&'t Write> {
        let Position { revision, writes } = self.watch?;
        match writes {
            usize::MAX => truth.after(revision, &self.trees).next(),
            writes => truth.after(revision.saturating_sub(1), &self.trees).nth(writes),
        }
    }
}

/// What `seen` has that `was` had not, and the other way round.
fn difference(seen: &Keys, was: &Keys) -> String {
    let without = |a: &Keys, b: &Keys| -> Keys {
        let differs = |(key, value): &(&String, &String)| b.get(*key) != Some(*value);
        a.iter().filter(differs).map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    format!("has {:?} too much and {:?} too little", without(seen, was), without(was, seen))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(revision: u64, id: &str, value: Option<&str>) -> Write {
        Write { revision, key: format!("/s/{id}"), value: value.map(str::to_owned) }
    }

    fn truth() -> Truth {
        let mut truth = Truth::new(Keys::default(), 1);
        for one in [
            write(2, "a", Some("1")),
            write(4, "b", Some("2")),
            write(4, "c", Some("3")),
            write(7, "a", None),
        ] {
            truth.add(one);
        }
        truth
    }

    fn picture(revision: u64, keys: &[(&str, &str)]) -> Seen {
        let key = |(id, value): &(&str, &str)| (format!("/s/{id}"), (*value).to_owned());
        Seen::Picture { revision, keys: keys.iter().map(key).collect() }
    }

    fn judge(history: &[Seen]) -> Result<(), String> {
        let (mut checker, truth) = (Checker::default(), truth());
        for seen in history {
            let (reader, trees) = ("r".to_owned(), vec!["/s".to_owned()]);
            checker.judge(&truth, &Observation { reader, trees, seen: seen.clone() })?;
        }
        checker.settled(&truth)
    }

    const LAST: [(&str, &str); 2] = [("b", "2"), ("c", "3")];

    #[test]
    fn a_good_history_passes() {
        judge(&[
            picture(2, &[("a", "1")]),
            // Of a revision at which something else was written.
            picture(3, &[("a", "1")]),
            picture(4, &[("a", "1"), ("b", "2"), ("c", "3")]),
            picture(9, &LAST),
        ])
        .unwrap();
        let event = |write| Seen::Event(write);
        judge(&[
            picture(3, &[("a", "1")]),
            Seen::Watching { after: 3 },
            event(write(4, "b", Some("2"))),
            event(write(4, "c", Some("3"))),
            Seen::Progress { revision: 6 },
            Seen::Ended("cut".into()),
            picture(6, &[("a", "1"), ("b", "2"), ("c", "3")]),
            Seen::Watching { after: 6 },
            event(write(7, "a", None)),
            picture(7, &LAST),
        ])
        .unwrap();
    }

    /// What a checker that lets everything pass would not find.
    #[test]
    fn each_broken_history_is_caught() {
        let all = [("a", "1"), ("b", "2"), ("c", "3")];
        let watch = |after: u64, then: &[Seen]| -> Vec<Seen> {
            [vec![Seen::Watching { after }], then.to_vec(), vec![picture(7, &LAST)]].concat()
        };
        let event = |revision, id, value| Seen::Event(write(revision, id, value));
        for (what, history, words) in [
            ("a fall", vec![picture(4, &all), picture(2, &[("a", "1")])], "fell from 4 to 2"),
            ("a key too little", vec![picture(4, &all[..2])], "\"/s/c\": \"3\"} too little"),
            ("a key too much", vec![picture(7, &all)], "\"/s/a\": \"1\"} too much"),
            ("another value", vec![picture(2, &[("a", "9")])], "\"/s/a\": \"9\"} too much"),
            ("half a transaction", vec![picture(4, &all[..2])], "too little"),
            ("a lost end", vec![picture(4, &all)], "is at revision 4"),
            ("a lost event", watch(1, &[event(4, "b", Some("2"))]), "is the next write"),
            (
                "a lost event of a transaction",
                watch(2, &[event(4, "b", Some("2")), event(7, "a", None)]),
                "is the next write",
            ),
            (
                "an event twice",
                watch(1, &[event(2, "a", Some("1")), event(2, "a", Some("1"))]),
                "is the next write",
            ),
            ("events in another order", watch(2, &[event(4, "c", Some("3"))]), "is the next write"),
            ("an event of the past", watch(4, &[event(2, "a", Some("1"))]), "is the next write"),
            ("a progress too far", watch(4, &[Seen::Progress { revision: 8 }]), "without"),
            ("an event without a watch", vec![event(2, "a", Some("1"))], "is the next write"),
        ] {
            let found = judge(&history).expect_err(what);
            assert!(found.contains(words), "{what}: {found}");
        }
    }

    #[test]
    fn what_is_forgotten_is_not_needed_any_more() {
        let (mut checker, mut truth) = (Checker::default(), truth());
        let mut see = |truth: &Truth, seen| {
            let (reader, trees) = ("r".to_owned(), vec!["/s".to_owned()]);
            checker.judge(truth, &Observation { reader, trees, seen }).unwrap();
            checker.oldest()
        };
        see(&truth, picture(4, &[("a", "1"), ("b", "2"), ("c", "3")]));
        see(&truth, Seen::Watching { after: 4 });
        let oldest = see(&truth, Seen::Progress { revision: 5 });
        truth.forget(oldest);
        see(&truth, Seen::Event(write(7, "a", None)));
        see(&truth, picture(7, &LAST));
    }
}
