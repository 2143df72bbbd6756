//! A small world explored to its end: every moment that can be, the way to one that must not be,
//! and whether the end can be reached from everywhere.

use std::hash::Hash;

use foldhash::{HashMap, HashMapExt};

/// A small world.
pub(crate) trait Explore {
    /// What it is like at one time.
    type Moment: Clone + Eq + Hash;

    /// Everything that may happen next, and what it is then like.
    fn steps(&mut self, moment: &Self::Moment) -> Vec<(String, Self::Moment)>;

    /// What must not be.
    fn judge(&self, moment: &Self::Moment) -> Result<(), String>;

    /// Whether the drain is over.
    fn has_ended(&self, moment: &Self::Moment) -> bool;
}

/// How many moments there are, or the way to one that must not be.
pub(crate) fn explore<W: Explore>(mut world: W, first: W::Moment) -> Result<usize, String> {
    let mut numbers = HashMap::new();
    let mut moments = vec![first.clone()];
    let mut from: Vec<(usize, String)> = vec![(0, String::new())];
    let mut edges: Vec<(usize, usize)> = Vec::new();
    numbers.insert(first, 0);
    let mut at = 0;
    while at < moments.len() {
        let moment = moments[at].clone();
        world.judge(&moment).map_err(|why| format!("{why}\n{}", trace(&from, at)))?;
        for (what, next) in world.steps(&moment) {
            let number = *numbers.entry(next.clone()).or_insert_with(|| {
                moments.push(next);
                from.push((at, what));
                moments.len() - 1
            });
            edges.push((at, number));
        }
        at += 1;
    }
    let ends: Vec<bool> = moments.iter().map(|moment| world.has_ended(moment)).collect();
    all_end(ends, &edges).map_err(|at| format!("the drain is stuck\n{}", trace(&from, at)))?;
    Ok(moments.len())
}

/// From everywhere the drain can still end.
fn all_end(mut good: Vec<bool>, edges: &[(usize, usize)]) -> Result<(), usize> {
    let mut before: Vec<Vec<usize>> = vec![Vec::new(); good.len()];
    edges.iter().for_each(|(from, to)| before[*to].push(*from));
    let mut open: Vec<usize> = (0..good.len()).filter(|at| good[*at]).collect();
    while let Some(at) = open.pop() {
        for from in &before[at] {
            if !std::mem::replace(&mut good[*from], true) {
                open.push(*from);
            }
        }
    }
    good.iter().position(|good| !good).map_or(Ok(()), Err)
}

fn trace(from: &[(usize, String)], mut at: usize) -> String {
    let mut steps = Vec::new();
    while at != 0 {
        steps.push(from[at].1.as_str());
        at = from[at].0;
    }
    steps.reverse();
    steps.join("\n")
}
