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
use crate::template::system::{IncludeError, IncludedFile, System};
use crate::template::value::Value;

/// How deep includes may be nested.
const MAX_INCLUDES: usize = 10;

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

    /// Reads the file with this name, if it is inside the folder.
    fn read(&self, system: &dyn System, name: &str) -> Result<IncludedFile, Fault> {
        let folder = self.folder.ok_or("there is no folder of templates to include from")?;
        let path = Path::new(name.trim_start_matches('/'));
        let inside = |part| matches!(part, Component::Normal(_) | Component::CurDir);
        let found = match path.components().all(inside) {
            true => system.include(folder, path),
            false => Err(IncludeError::Outside),
        };
        found.map_err(|error| match error {
            IncludeError::Outside => {
                let what = format!("include path {name:?} is outside template directory");
                Fault::new(what, "name a file below the folder of templates")
            }
            IncludeError::TooLarge(_) => format!("include {name}: {error}").into(),
            IncludeError::Io(_) => {
                Fault::new(format!("include {name}: {error}"), "is the name right?")
            }
        })
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
        let ready = self.includes.read(self.call.system(), &to_str(name)).and_then(|file| {
            self.includes.push(&file.path)?;
            Ok(file)
        });
        let file = ready.map_err(|fault| self.stop(at, fault))?;
        let done = self.included(at, &file, &data);
        self.includes.open.borrow_mut().pop();
        done
    }

    fn included(
        &self,
        at: usize,
        file: &IncludedFile,
        data: &Value,
    ) -> Result<Value, TemplateError> {
        let program = GoTemplate::read(&file.path, &file.text)?;
        let text = Exec::new(&program, self.call, self.includes).run(data)?;
        let value = Value::str(text);
        self.budget().made(&value).map_err(|fault| self.stop(at, fault))?;
        Ok(value)
    }
}
