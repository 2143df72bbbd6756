//! Random text of templates: all constructs, all functions, and what is no template at all.

use fastrand::Rng;

const LITERALS: [&str; 37] = [
    "\"/app/a\"",
    "\"/app/*\"",
    "\"/*\"",
    "\"/app\"",
    "\"/none\"",
    "\"/app/\"",
    "\"app/a\"",
    "\"/app//a\"",
    "\"/n\"",
    "\"/[a-c]*/?\"",
    "\"/app/[\"",
    "\"\"",
    "\"é\\xff\"",
    "\"a<b>'&\\\"\"",
    "\"\\u2028\\U0001F600\"",
    "\"%41 +\"",
    "\"1,2,3\"",
    "\",\"",
    "`raw\\n`",
    "\"null\"",
    "1",
    "2",
    "-1",
    "1.5",
    "0x1F",
    "1e3",
    "010",
    "1_000",
    "9223372036854775807",
    "'c'",
    "'\\n'",
    "true",
    "false",
    "nil",
    ".",
    "$",
    "$x",
];
const FIELDS: [&str; 6] = [".Key", ".Value", ".a", ".none", "$.a", "$x.Key"];
const FUNCTIONS: [(&str, usize); 61] = [
    ("getv", 1),
    ("getv", 2),
    ("get", 1),
    ("gets", 1),
    ("getvs", 1),
    ("exists", 1),
    ("ls", 1),
    ("lsdir", 1),
    ("base", 1),
    ("dir", 1),
    ("split", 2),
    ("join", 2),
    ("toUpper", 1),
    ("toLower", 1),
    ("contains", 2),
    ("replace", 4),
    ("trimSuffix", 2),
    ("base64Encode", 1),
    ("base64Decode", 1),
    ("parseBool", 1),
    ("atoi", 1),
    ("add", 2),
    ("sub", 2),
    ("mul", 2),
    ("div", 2),
    ("mod", 2),
    ("seq", 2),
    ("json", 1),
    ("jsonArray", 1),
    ("map", 2),
    ("map", 4),
    ("getenv", 1),
    ("getenv", 2),
    ("fileExists", 1),
    ("reverse", 1),
    ("sortByLength", 1),
    ("sortKVByLength", 1),
    ("lookupIPV4", 1),
    ("lookupIP", 1),
    ("len", 1),
    ("index", 2),
    ("index", 3),
    ("slice", 2),
    ("slice", 3),
    ("print", 2),
    ("println", 1),
    ("printf", 2),
    ("printf", 3),
    ("html", 1),
    ("js", 1),
    ("urlquery", 1),
    ("eq", 2),
    ("eq", 3),
    ("ne", 2),
    ("lt", 2),
    ("le", 2),
    ("gt", 2),
    ("ge", 2),
    ("and", 2),
    ("or", 2),
    ("not", 1),
];
/// Of confd's fork alone.
const OF_THE_FORK: [(&str, usize); 34] = [
    ("default", 2),
    ("ternary", 3),
    ("coalesce", 3),
    ("empty", 1),
    ("toJson", 1),
    ("fromJson", 1),
    ("toPrettyJson", 1),
    ("indent", 2),
    ("nindent", 2),
    ("quote", 1),
    ("quote", 2),
    ("squote", 1),
    ("regexMatch", 2),
    ("regexFind", 2),
    ("regexReplaceAll", 3),
    ("trimPrefix", 2),
    ("repeat", 2),
    ("nospace", 1),
    ("snakecase", 1),
    ("camelcase", 1),
    ("kebabcase", 1),
    ("dict", 2),
    ("dict", 4),
    ("list", 0),
    ("list", 3),
    ("hasKey", 2),
    ("keys", 1),
    ("values", 1),
    ("append", 2),
    ("pluck", 2),
    ("sha256sum", 1),
    ("lookupIfaceIPV4", 1),
    ("hostname", 0),
    ("include", 1),
];
const TEXTS: [&str; 12] =
    ["text", "\n", " \t", "{", "}", "{ {", "é", "\r\n", "  \n  ", "#", "\\", "\u{2028}"];
/// What a mutation puts somewhere into a template.
const SCRAPS: [&str; 40] = [
    "{{",
    "}}",
    "{{-",
    "-}}",
    "{{- ",
    " -}}",
    "{{/*",
    "*/}}",
    "{{end}}",
    "{{else}}",
    "(",
    ")",
    "|",
    " | ",
    ":=",
    "=",
    ",",
    ".",
    "..",
    "$",
    "$x",
    "$y",
    "\"",
    "'",
    "`",
    "\\",
    "\\x",
    "\\u12",
    "é",
    " ",
    "\n",
    "0",
    "_",
    "%",
    "{{break}}",
    "{{continue}}",
    "{{else with .}}",
    "nil",
    "{{define \"t\"}}",
    "\\uD800",
];
const VERBS: &[u8] = b"vvvsssdqxXtTbocUeEfgGO%wz!";
const FLAGS: &[u8] = b"+-# 0";

fn one<'t>(chance: &mut Rng, of: &[&'t str]) -> &'t str {
    chance.choice(of).copied().unwrap_or_default()
}

fn letter(chance: &mut Rng, of: &[u8]) -> char {
    char::from(chance.choice(of).copied().unwrap_or(b'v'))
}

/// Makes templates; with the functions of the fork or without.
pub(crate) struct Author<'r> {
    pub(crate) chance: &'r mut Rng,
    pub(crate) fork: bool,
}

impl Author<'_> {
    pub(crate) fn template(&mut self) -> String {
        let mut text = String::new();
        for _ in 0..self.chance.usize(1..5) {
            text += &self.piece(0);
        }
        if self.chance.usize(0..3) == 0 {
            for _ in 0..self.chance.usize(1..3) {
                text = self.mutated(&text);
            }
        }
        text
    }

    fn format(&mut self) -> String {
        let mut format = String::from("\"");
        for _ in 0..self.chance.usize(1..3) {
            format += "%";
            for _ in 0..self.chance.usize(0..3) {
                format.push(letter(self.chance, FLAGS));
            }
            match self.chance.usize(0..8) {
                0 => format += "7",
                1 => format += ".2",
                2 => format += "9.3",
                3 => format += "*",
                4 => format += "[2]",
                _ => {}
            }
            // Addresses are documented.
            format.push(letter(self.chance, VERBS));
            format += one(self.chance, &[",", " ", "é", ""]);
        }
        format + "\""
    }

    fn operand(&mut self, depth: usize) -> String {
        match self.chance.usize(0..10) {
            0..5 => one(self.chance, &LITERALS).to_owned(),
            5 => one(self.chance, &FIELDS).to_owned(),
            6 if depth < 3 => format!("({}).Key", self.pipeline(depth + 1)),
            _ if depth < 3 => format!("({})", self.pipeline(depth + 1)),
            _ => one(self.chance, &LITERALS).to_owned(),
        }
    }

    fn call(&mut self, depth: usize, piped: usize) -> String {
        let from: &[(&str, usize)] =
            if self.fork && self.chance.bool() { &OF_THE_FORK } else { &FUNCTIONS };
        let (name, operands) = self.chance.choice(from).copied().unwrap_or(("print", 1));
        let mut operands = operands.saturating_sub(piped);
        if self.chance.usize(0..16) == 0 {
            operands = self.chance.usize(0..4);
        }
        let mut text = name.to_owned();
        for nth in 0..operands {
            let operand = if name == "printf" && nth == 0 && self.chance.usize(0..10) != 0 {
                self.format()
            } else {
                self.operand(depth)
            };
            text = format!("{text} {operand}");
        }
        text
    }

    fn pipeline(&mut self, depth: usize) -> String {
        let mut text =
            if self.chance.usize(0..4) == 0 { self.operand(depth) } else { self.call(depth, 0) };
        while self.chance.usize(0..4) == 0 {
            text = format!("{text} | {}", self.call(depth, 1));
        }
        text
    }

    /// Pieces of a body.
    fn body(&mut self, depth: usize) -> String {
        (0..self.chance.usize(0..3)).map(|_| self.piece(depth + 1)).collect()
    }

    fn action(&mut self, inner: &str) -> String {
        let left = one(self.chance, &["{{", "{{", "{{", "{{ ", "{{- "]);
        let right = one(self.chance, &["}}", "}}", "}}", " }}", " -}}"]);
        format!("{left}{inner}{right}")
    }

    fn piece(&mut self, depth: usize) -> String {
        if depth > 3 {
            return one(self.chance, &TEXTS).to_owned();
        }
        let value = self.pipeline(0);
        let declared = match self.chance.usize(0..4) {
            0 => format!("$x := {value}"),
            _ => value.clone(),
        };
        let (body, other) = (self.body(depth), self.body(depth));
        let middle = match self.chance.usize(0..6) {
            0 => format!("{{{{else}}}}{other}"),
            1 => format!("{{{{else if {declared}}}}}{other}"),
            2 => format!("{{{{else with {declared}}}}}{other}"),
            _ => String::new(),
        };
        match self.chance.usize(0..16) {
            0..5 => self.action(&declared),
            5 => self.action(&format!("if {declared}")) + &body + &middle + "{{end}}",
            6 => self.action(&format!("with {declared}")) + &body + &middle + "{{end}}",
            7 => {
                let names = one(self.chance, &["", "$x := ", "$i, $x := ", "$i, $x = "]);
                let early = one(self.chance, &["", "", "{{break}}", "{{continue}}"]);
                let shown = one(self.chance, &["{{.}};", "{{$x}};", ""]);
                format!("{{{{range {names}{value}}}}}{shown}{body}{early}{middle}{{{{end}}}}")
            }
            8 => format!("{{{{define \"t\"}}}}{body}{{{{.}}}}{{{{end}}}}"),
            9 => self.action(&format!("template \"t\" {declared}")),
            10 => format!("{{{{block \"b\" {declared}}}}}{body}{{{{.}}}}{{{{end}}}}"),
            11 => self.action(&format!("$x = {value}")),
            12 => one(self.chance, &["{{/* c */}}", "{{- /* c */ -}}"]).to_owned(),
            _ => one(self.chance, &TEXTS).to_owned(),
        }
    }

    /// The same with something taken out, put in or put twice.
    fn mutated(&mut self, text: &str) -> String {
        let places: Vec<usize> =
            text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
        let at = self.chance.choice(&places).copied().unwrap_or(0);
        let end = self.chance.choice(&places).copied().unwrap_or(0);
        let (from, to) = (at.min(end), at.max(end).min(at.min(end) + 6));
        let to = if text.is_char_boundary(to) { to } else { from };
        let Some((head, tail)) = text.split_at_checked(to) else { return text.to_owned() };
        let (head, cut) = head.split_at_checked(from).unwrap_or((head, ""));
        match self.chance.usize(0..4) {
            0 => format!("{head}{tail}"),
            1 => format!("{head}{cut}{cut}{tail}"),
            _ => format!("{head}{}{cut}{tail}", one(self.chance, &SCRAPS)),
        }
    }
}
