use proptest::prelude::*;

use super::merge::{Late, Merge};
use super::*;
use crate::model::{Change, Revision};

fn deleted(key: &str, at: u64) -> Change {
    Change::Deleted { key: key.into(), at: Revision(at) }
}

fn at(event: Option<WatchEvent>) -> Vec<u64> {
    match event {
        Some(WatchEvent::Changes(changes)) => changes.iter().map(|c| c.revision().0).collect(),
        None => Vec::new(),
        other => panic!("{other:?}"),
    }
}

/// A merge that has learnt that its server answers.
fn answering(after: u64) -> Merge {
    let mut merge = Merge::new(Revision(after));
    assert!(merge.wants_to_ask());
    merge.asked();
    assert_eq!(merge.answered(Revision(after)), None);
    merge
}

#[test]
fn a_revision_is_handed_on_when_the_server_has_answered_after_it() {
    let mut merge = answering(3);
    assert!(!merge.wants_to_ask());
    assert_eq!(merge.take(vec![deleted("/b", 4)]), Ok(None));
    assert!(merge.wants_to_ask() && merge.is_waiting());
    merge.asked();
    assert!(!merge.wants_to_ask());
    // What comes after the question waits for the next one.
    assert_eq!(merge.take(vec![deleted("/a", 4), deleted("/a", 5)]), Ok(None));
    assert_eq!(at(merge.answered(Revision(5))), [4, 4]);
    assert!(merge.wants_to_ask());
    merge.asked();
    assert!(at(merge.answered(Revision(4))).is_empty(), "an answer to an earlier question");
    assert_eq!(at(merge.answered(Revision(5))), [5]);
    assert!(!merge.wants_to_ask() && !merge.is_waiting());
}

#[test]
fn without_answers_changes_are_handed_on_as_a_part() {
    let mut merge = Merge::new(Revision(3));
    let event = merge.take(vec![deleted("/b", 5)]);
    assert_eq!(event, Ok(Some(WatchEvent::Partial(vec![deleted("/b", 5)]))));
    // One that had been slow is no late one: nothing was reported as complete.
    let event = merge.take(vec![deleted("/a", 4)]);
    assert_eq!(event, Ok(Some(WatchEvent::Partial(vec![deleted("/a", 4)]))));
    // The server begins to answer, and stops.
    merge.asked();
    assert_eq!(merge.answered(Revision(5)), None);
    assert_eq!(merge.take(vec![deleted("/a", 6)]), Ok(None));
    merge.asked();
    assert_eq!(merge.partial(), Some(WatchEvent::Partial(vec![deleted("/a", 6)])));
    assert!(merge.wants_to_ask() && !merge.is_waiting());
}

#[test]
fn a_change_of_a_complete_revision_is_late() {
    let mut merge = answering(3);
    assert_eq!(merge.take(vec![deleted("/b", 5)]), Ok(None));
    merge.asked();
    assert_eq!(at(merge.answered(Revision(5))), [5]);
    assert_eq!(merge.take(vec![deleted("/a", 5)]), Err(Late));
}

#[test]
fn a_tree_in_another_has_no_watcher_of_its_own() {
    let trees = ["/a", "/a/b", "/c", "/a", "/cd"].map(|path| path.parse::<Tree>().unwrap());
    let below = Tree::below("/a".parse().unwrap());
    let all = [trees.as_slice(), &[below]].concat();
    let outermost: Vec<String> = outermost(&all).iter().map(ToString::to_string).collect();
    assert_eq!(outermost, ["/a", "/c", "/cd"]);
}

proptest! {
    /// A server as etcd is: each revision is handed to the watchers in one step, a message each,
    /// and a question is answered behind them. Transactions change one tree or both.
    #[test]
    fn no_watch_delivers_half_a_revision(
        revisions in prop::collection::vec((any::<bool>(), any::<bool>()), 1..40),
        reads in prop::collection::vec(0_usize..4, 1..80),
    ) {
        enum Message { Events(Vec<Change>), Progress(Revision) }
        let (mut merge, mut queue) = (answering(0), std::collections::VecDeque::new());
        let mut revisions = revisions.into_iter().zip(1_u64..);
        let (mut expected, mut seen) = (Vec::new(), Vec::new());
        let (mut now, mut reads) = (0, reads.into_iter().cycle());
        loop {
            let next = revisions.next();
            if let Some(((a, b), at)) = next {
                now = at;
                for (key, _) in [("/a", a), ("/b", b)].into_iter().filter(|(_, there)| *there) {
                    queue.push_back(Message::Events(vec![deleted(key, at)]));
                    expected.push(at);
                }
            }
            let most = if next.is_some() { reads.next().unwrap_or(0) } else { usize::MAX };
            let mut read = 0;
            while read < most && let Some(message) = queue.pop_front() {
                read += 1;
                let event = match message {
                    Message::Events(changes) => merge.take(changes).unwrap(),
                    Message::Progress(at) => merge.answered(at),
                };
                let batch = at(event);
                if let Some(last) = batch.last() {
                    let there = expected.iter().filter(|at| *at <= last).count();
                    prop_assert_eq!(seen.len() + batch.len(), there, "half of {}", last);
                }
                seen.extend(batch);
                if merge.wants_to_ask() {
                    merge.asked();
                    queue.push_back(Message::Progress(Revision(now)));
                }
            }
            if next.is_none() {
                break;
            }
        }
        prop_assert_eq!(seen, expected);
    }
}
