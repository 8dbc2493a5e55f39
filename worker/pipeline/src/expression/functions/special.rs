//! The functions that are more than a function of values: they look at the clock, or at a path.

use std::fmt;

use vrl::compiler::expression::Query;
use vrl::compiler::function::{Compiled, Example};
use vrl::compiler::prelude::*;
use vrl::path::{OwnedTargetPath, OwnedValuePath};

use super::parameter;

/// `now()`: the epoch's clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now;

impl Function for Now {
    fn identifier(&self) -> &'static str {
        "now"
    }

    fn usage(&self) -> &'static str {
        ""
    }

    fn category(&self) -> &'static str {
        "Forebay"
    }

    fn return_kind(&self) -> u16 {
        kind::TIMESTAMP
    }

    fn examples(&self) -> &'static [Example] {
        &[]
    }

    fn compile(&self, _: &TypeState, _: &mut FunctionCompileContext, _: ArgumentList) -> Compiled {
        let path = OwnedTargetPath::metadata(OwnedValuePath::single_field(super::super::vrl_program::NOW));
        Ok(NowCall(path).as_expr())
    }
}

#[derive(Clone, Debug)]
struct NowCall(OwnedTargetPath);

impl FunctionExpression for NowCall {
    fn resolve(&self, ctx: &mut Context) -> Resolved {
        let clock = ctx.target().target_get(&self.0)?;
        Ok(clock.cloned().expect("the clock is set before a program runs"))
    }

    fn type_def(&self, _: &TypeState) -> TypeDef {
        TypeDef::timestamp()
    }
}

/// `exists(.path)`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exists;

impl Function for Exists {
    fn identifier(&self) -> &'static str {
        "exists"
    }

    fn usage(&self) -> &'static str {
        ""
    }

    fn category(&self) -> &'static str {
        "Forebay"
    }

    fn return_kind(&self) -> u16 {
        kind::BOOLEAN
    }

    fn examples(&self) -> &'static [Example] {
        &[]
    }

    fn parameters(&self) -> &'static [Parameter] {
        const { &[parameter("field", kind::ANY)] }
    }

    fn compile(&self, _: &TypeState, _: &mut FunctionCompileContext, arguments: ArgumentList) -> Compiled {
        Ok(ExistsCall(arguments.required_query("field")?).as_expr())
    }
}

#[derive(Clone, Debug)]
struct ExistsCall(Query);

impl FunctionExpression for ExistsCall {
    fn resolve(&self, ctx: &mut Context) -> Resolved {
        let exists = if let Some(path) = self.0.external_path() {
            ctx.target().target_get(path)?.is_some()
        } else if let Some(name) = self.0.variable_ident() {
            ctx.state().variable(name).is_some_and(|value| value.get(self.0.path()).is_some())
        } else if let Some(expression) = self.0.expression_target() {
            expression.resolve(ctx)?.get(self.0.path()).is_some()
        } else {
            false
        };
        Ok(exists.into())
    }

    fn type_def(&self, _: &TypeState) -> TypeDef {
        TypeDef::boolean().infallible()
    }
}

/// `del(.path)`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Del;

impl Function for Del {
    fn identifier(&self) -> &'static str {
        "del"
    }

    fn usage(&self) -> &'static str {
        ""
    }

    fn category(&self) -> &'static str {
        "Forebay"
    }

    fn return_kind(&self) -> u16 {
        kind::ANY
    }

    fn examples(&self) -> &'static [Example] {
        &[]
    }

    fn parameters(&self) -> &'static [Parameter] {
        const { &[parameter("target", kind::ANY)] }
    }

    fn pure(&self) -> bool {
        false
    }

    fn compile(&self, _: &TypeState, ctx: &mut FunctionCompileContext, arguments: ArgumentList) -> Compiled {
        let query = arguments.required_query("target")?;
        if let Some(path) = query.external_path()
            && ctx.is_read_only_path(path)
        {
            let context = format!("{query} cannot be deleted here; a `remap` step can");
            return Err(function::Error::ReadOnlyMutation { context }.into());
        }
        Ok(Box::new(DelCall(query)))
    }
}

#[derive(Clone, Debug)]
struct DelCall(Query);

impl fmt::Display for DelCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "del({})", self.0)
    }
}

impl Expression for DelCall {
    fn resolve(&self, ctx: &mut Context) -> Resolved {
        if let Some(path) = self.0.external_path() {
            return Ok(ctx.target_mut().target_remove(path, false)?.unwrap_or(Value::Null));
        }
        if let Some(name) = self.0.variable_ident() {
            let removed = ctx.state_mut().variable_mut(name).and_then(|value| value.remove(self.0.path(), false));
            return Ok(removed.unwrap_or(Value::Null));
        }
        let value = self.0.expression_target().map_or(Ok(Value::Null), |expression| expression.resolve(ctx))?;
        Ok(value.get(self.0.path()).cloned().unwrap_or(Value::Null))
    }

    fn type_info(&self, state: &TypeState) -> TypeInfo {
        let mut state = state.clone();
        let result = self.0.apply_type_info(&mut state).impure();
        self.0.delete_type_def(&mut state.external, false);
        TypeInfo::new(state, result)
    }
}
