//! `include "file" [data]`: another template of the same folder, rendered in place.
//! confd's fork has it; confd does not.

use std::cell::RefCell;
use std::path::{Component, Path, PathBuf};

use super::GoTemplate;
use super::exec::Exec;
use super::tree::Operand;
use crate::template::error::TemplateError;
use crate::template::functions::{Fault, Ty};
use crate::template::runes::to_str;
use crate::template::value::Value;

/// How deep includes may be nested.
const MAX_INCLUDES: usize = 10;
/// The largest file worth including, in bytes.
const MAX_FILE: u64 = 4 << 20;

/// The files being rendered, outermost first.
#[derive(Debug)]
pub(super) struct Includes<'a> {
    folder: Option<&'a Path>,
    open: RefCell<Vec<PathBuf>>,
}

impl<'a> Includes<'a> {
    pub(super) fn new(folder: Option<&'a Path>) -> Self {
        Self { folder, open: RefCell::new(Vec::new()) }
    }

    /// The file of a name, if it is one inside the folder; a link out is outside.
    fn find(&self, name: &str) -> Result<PathBuf, Fault> {
        let folder = self.folder.ok_or("there is no folder of templates to include from")?;
        let name_path = Path::new(name.trim_start_matches('/'));
        let outside = || {
            let fault = format!("include path {name:?} is outside template directory");
            Fault::new(fault, "name a file below the folder of templates")
        };
        if name_path
            .components()
            .any(|part| !matches!(part, Component::Normal(_) | Component::CurDir))
        {
            return Err(outside());
        }
        let missing =
            |e: std::io::Error| Fault::new(format!("include {name}: {e}"), "is the name right?");
        let root = folder.canonicalize().map_err(missing)?;
        let file = root.join(name_path).canonicalize().map_err(missing)?;
        if !file.starts_with(&root) || file == root {
            return Err(outside());
        }
        Ok(file)
    }

    fn push(&self, file: &Path) -> Result<(), Fault> {
        let mut open = self.open.borrow_mut();
        if open.iter().any(|other| other == file) {
            let fault =
                format!("include cycle detected: {} is already being processed", file.display());
            return Err(fault.into());
        }
        if open.len() >= MAX_INCLUDES {
            return Err(format!("maximum include depth ({MAX_INCLUDES}) exceeded").into());
        }
        open.push(file.to_owned());
        Ok(())
    }
}

fn read(file: &Path) -> Result<Vec<u8>, Fault> {
    let failed = |e: std::io::Error| Fault::from(format!("include {}: {e}", file.display()));
    let size = std::fs::metadata(file).map_err(failed)?.len();
    if size > MAX_FILE {
        return Err(format!("include {}: {size} bytes are too many", file.display()).into());
    }
    std::fs::read(file).map_err(failed)
}

impl Exec<'_> {
    pub(super) fn include(
        &mut self,
        dot: &Value,
        at: usize,
        args: &[Operand],
        piped: Option<Value>,
    ) -> Result<Value, TemplateError> {
        let mut values = Vec::new();
        for (i, arg) in args.iter().enumerate() {
            values.push(self.argument(dot, if i == 0 { Ty::Str } else { Ty::Any }, arg)?);
        }
        values.extend(piped);
        let Some(Value::Str(name)) = values.first() else {
            return Err(
                self.stop(at, Fault::new("include needs a name", "as in `include \"part.tmpl\"`"))
            );
        };
        let data = values.get(1).cloned().unwrap_or(Value::Absent).or_absent();
        let ready = self.includes.find(&to_str(name)).and_then(|file| {
            self.includes.push(&file)?;
            Ok(file)
        });
        let file = ready.map_err(|fault| self.stop(at, fault))?;
        let done = self.included(at, &file, &data);
        self.includes.open.borrow_mut().pop();
        done
    }

    fn included(&self, at: usize, file: &Path, data: &Value) -> Result<Value, TemplateError> {
        let text = read(file).map_err(|fault| self.stop(at, fault))?;
        let program = GoTemplate::read(file, &text)?;
        let text = Exec::new(&program, self.call, self.includes).run(data)?;
        let value = Value::str(text);
        self.budget().made(&value).map_err(|fault| self.stop(at, fault))?;
        Ok(value)
    }
}
