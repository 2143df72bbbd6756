//! A number and its noun.

/// `1 backend`, `2 backends`: for nouns whose plural ends in `s`.
pub fn plural(n: usize, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_singular() {
        assert_eq!(plural(0, "backend"), "0 backends");
        assert_eq!(plural(1, "load balancer"), "1 load balancer");
        assert_eq!(plural(2, "value"), "2 values");
    }
}
