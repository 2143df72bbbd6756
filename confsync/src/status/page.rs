//! The page at `/`.

use common::runtime::HtmlPage;

pub(super) fn page() -> HtmlPage {
    HtmlPage::new(include_str!("page.html"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_refers_to_nothing_outside_and_makes_no_markup_from_values() {
        assert_eq!(super::page().problem(), None);
    }
}
