//! For people or for programs: the output of commands that show something.

use super::{Reader, Setting};

/// `--output`, read from this variable as well.
pub const fn form(env: &'static str) -> Setting {
    Setting::new("output", env, "FORM", "Output format: a table for people, JSON for programs")
        .short('o')
        .choices(&["table", "json"])
        .default("table")
}

/// `--json`, read from this variable as well.
pub const fn json(env: &'static str) -> Setting {
    Setting::new("json", env, "", "The same as --output json")
}

/// Whether JSON is asked for, by either.
pub fn is_json(from: &mut Reader<'_>, form: &Setting, json: &Setting) -> bool {
    let form = from.text(form).is_some_and(|form| form.eq_ignore_ascii_case("json"));
    from.yes(json) || form
}
