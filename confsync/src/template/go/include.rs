//! `include "file" [data]`: another template of the same folder, rendered in place.
//! confd's fork has it; confd does not.

use super::GoTemplate;
use super::exec::Exec;
use super::tree::Operand;
use crate::template::error::TemplateError;
use crate::template::functions::{Fault, Ty};
use crate::template::runes::to_str;
use crate::template::system::IncludedFile;
use crate::template::value::Value;

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
        self.includes.pop();
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
