//! The page at `/`.

use common::runtime::HtmlPage;

const PAGE: &str = concat!(
    include_str!("page/head.html"),
    "<style>\n",
    include_str!("page/page.css"),
    "</style>\n",
    include_str!("page/body.html"),
    "<script>\n",
    include_str!("page/elements.js"),
    include_str!("page/backends.js"),
    include_str!("page/page.js"),
    include_str!("page/connection.js"),
    "</script>\n</body>\n</html>\n"
);

pub(super) fn page() -> HtmlPage {
    HtmlPage::new(PAGE)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_refers_to_nothing_outside_and_makes_no_markup_from_values() {
        assert_eq!(super::page().problem(), None);
    }
}
