//! The page at `/`.

use common::runtime::HtmlPage;

const STYLE: &str = include_str!("page/page.css");
const BODY: &str = include_str!("page/body.html");
const SCRIPT: &str = concat!(
    include_str!("page/elements.js"),
    include_str!("page/backends.js"),
    include_str!("page/page.js"),
    include_str!("page/connection.js"),
);

pub(super) fn page() -> HtmlPage {
    HtmlPage::new("confsync", STYLE, BODY, SCRIPT)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_refers_to_nothing_outside_and_makes_no_markup_from_values() {
        assert_eq!(super::page().problem(), None);
    }
}
