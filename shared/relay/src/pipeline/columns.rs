//! Which columns a template names.
//!
//! The walk knows what is assigned by `set`, `for` and `with`; every other variable is a column, and so are `row.name` and
//! `row["product name"]`. Where it cannot be sure that a variable is assigned it counts it as a column.

use crate::prompt;
use minijinja::machinery::ast::{CallArg, Expr, Stmt};
use minijinja::machinery::{Span, parse};
use minijinja::{Environment, ErrorKind};
use std::collections::BTreeSet;

/// The variable that holds the whole row.
const ROW: &str = "row";

/// A mistake in a template.
pub(super) struct Mistake {
    /// Byte offset in the template.
    pub(super) offset: usize,
    pub(super) message: String,
}

/// The columns that the template names, sorted; or all mistakes in it. At least one column.
pub(super) fn of(template: &str) -> Result<Vec<String>, Vec<Mistake>> {
    let environment = prompt::environment();
    let tree = parse(template, "template", Default::default())
        .and_then(|tree| environment.template_from_str(template).map(|_| tree))
        .map_err(|error| vec![syntax_mistake(&error, template)])?;
    let mut walk =
        Walk { environment: &environment, assigned: BTreeSet::new(), columns: BTreeSet::new(), mistakes: Vec::new() };
    walk.statement(&tree);
    if walk.columns.is_empty() && walk.mistakes.is_empty() {
        let message = "the template names no column, so that every row would ask the same: write {{ description }}";
        walk.mistakes.push(Mistake { offset: 0, message: message.to_owned() });
    }
    if walk.mistakes.is_empty() { Ok(walk.columns.into_iter().collect()) } else { Err(walk.mistakes) }
}

fn syntax_mistake(error: &minijinja::Error, template: &str) -> Mistake {
    let line_start = |line: usize| template.split_inclusive('\n').take(line - 1).map(str::len).sum();
    let offset = error.range().map(|range| range.start).or_else(|| error.line().map(line_start)).unwrap_or(0);
    let detail = error.detail().unwrap_or("syntax error");
    let hint = match detail.strip_prefix("unknown statement ") {
        Some("include" | "import" | "from" | "extends") => ": a template is one text, paste the other one here",
        Some("block" | "macro" | "call") => ": there are no blocks and macros, write the text where it is wanted",
        Some(_) => ": there are if, for, set, with, filter, raw",
        None => "",
    };
    Mistake { offset, message: format!("{detail}{hint}") }
}

struct Walk<'e, 'a> {
    environment: &'e Environment<'e>,
    /// Variables that certainly have a value here.
    assigned: BTreeSet<&'a str>,
    columns: BTreeSet<String>,
    mistakes: Vec<Mistake>,
}

impl<'a> Walk<'_, 'a> {
    fn mistake(&mut self, span: Span, message: impl Into<String>) {
        self.mistakes.push(Mistake { offset: span.start_offset as usize, message: message.into() });
    }

    fn statements(&mut self, statements: &[Stmt<'a>]) {
        statements.iter().for_each(|statement| self.statement(statement));
    }

    /// Walks within a scope of its own; returns what is assigned at its end.
    fn scoped(&mut self, walk: impl FnOnce(&mut Self)) -> BTreeSet<&'a str> {
        let before = self.assigned.clone();
        walk(self);
        std::mem::replace(&mut self.assigned, before)
    }

    fn statement(&mut self, statement: &Stmt<'a>) {
        match statement {
            Stmt::Template(template) => self.statements(&template.children),
            Stmt::EmitRaw(_) => {}
            Stmt::EmitExpr(emit) => self.expression(&emit.expr),
            Stmt::ForLoop(each) => {
                self.expression(&each.iter);
                self.scoped(|walk| {
                    walk.assign(&each.target);
                    walk.assigned.insert("loop");
                    walk.expressions(&each.filter_expr);
                    walk.statements(&each.body);
                });
                self.scoped(|walk| walk.statements(&each.else_body));
            }
            Stmt::IfCond(branch) => {
                self.expression(&branch.expr);
                let after_true = self.scoped(|walk| walk.statements(&branch.true_body));
                let after_false = self.scoped(|walk| walk.statements(&branch.false_body));
                self.assigned = after_true.intersection(&after_false).copied().collect();
            }
            Stmt::WithBlock(with) => {
                self.scoped(|walk| {
                    for (target, value) in &with.assignments {
                        walk.expression(value);
                        walk.assign(target);
                    }
                    walk.statements(&with.body);
                });
            }
            Stmt::Set(set) => {
                self.expression(&set.expr);
                self.assign(&set.target);
            }
            Stmt::SetBlock(set) => {
                self.statements(&set.body);
                self.expressions(&set.filter);
                self.assign(&set.target);
            }
            Stmt::AutoEscape(block) => {
                self.expression(&block.enabled);
                self.statements(&block.body);
            }
            Stmt::FilterBlock(block) => {
                self.statements(&block.body);
                self.expression(&block.filter);
            }
            Stmt::Do(call) => self.call(&call.call.expr, &call.call.args, call.call.span()),
        }
    }

    fn expressions<'x>(&mut self, expressions: impl IntoIterator<Item = &'x Expr<'a>>)
    where
        'a: 'x,
    {
        expressions.into_iter().for_each(|expression| self.expression(expression));
    }

    fn expression(&mut self, expression: &Expr<'a>) {
        match expression {
            Expr::Const(_) => {}
            Expr::Var(variable) if self.is_row(expression) => {
                let message = "row is the whole row: name one column of it, as row.name or row[\"product name\"]";
                self.mistake(variable.span(), message);
            }
            Expr::Var(variable) if self.assigned.contains(variable.id) => {}
            Expr::Var(variable) => self.column(variable.id),
            Expr::GetAttr(attribute) if self.is_row(&attribute.expr) => self.column(attribute.name),
            Expr::GetAttr(attribute) => self.expression(&attribute.expr),
            Expr::GetItem(item) if self.is_row(&item.expr) => {
                match item.subscript_expr.as_const().as_ref().and_then(|name| name.as_str()) {
                    Some(name) => self.column(name),
                    None => {
                        let message = "a column is named by a string that stands here: row[\"product name\"]";
                        self.mistake(item.subscript_expr.span(), message);
                        self.expression(&item.subscript_expr);
                    }
                }
            }
            Expr::GetItem(item) => self.expressions([&item.expr, &item.subscript_expr]),
            Expr::Slice(slice) => {
                self.expression(&slice.expr);
                self.expressions(slice.start.iter().chain(&slice.stop).chain(&slice.step));
            }
            Expr::UnaryOp(operation) => self.expression(&operation.expr),
            Expr::BinOp(operation) => self.expressions([&operation.left, &operation.right]),
            Expr::Compare(comparison) => {
                self.expression(&comparison.expr);
                self.expressions(comparison.ops.iter().map(|op| &op.expr));
            }
            Expr::IfExpr(choice) => {
                self.expressions([&choice.test_expr, &choice.true_expr]);
                self.expressions(&choice.false_expr);
            }
            Expr::Filter(filter) => {
                let known = self.environment.empty_state().apply_filter(filter.name, &[]);
                if known.is_err_and(|error| error.kind() == ErrorKind::UnknownFilter) {
                    self.mistake(filter.span(), format!("there is no filter {:?}", filter.name));
                }
                self.expressions(&filter.expr);
                self.arguments(&filter.args);
            }
            Expr::Test(test) => {
                let known = self.environment.empty_state().perform_test(test.name, &[]);
                if known.is_err_and(|error| error.kind() == ErrorKind::UnknownTest) {
                    self.mistake(test.span(), format!("there is no test {:?}", test.name));
                }
                self.expression(&test.expr);
                self.arguments(&test.args);
            }
            Expr::Call(call) => self.call(&call.expr, &call.args, call.span()),
            Expr::List(list) => self.expressions(&list.items),
            Expr::Tuple(tuple) => self.expressions(&tuple.items),
            Expr::Map(map) => self.expressions(map.keys.iter().chain(&map.values)),
        }
    }

    /// A call of one of the few functions, or of `loop.cycle` and its like. Values have no methods.
    fn call(&mut self, callee: &Expr<'a>, arguments: &[CallArg<'a>], span: Span) {
        match callee {
            Expr::Var(name) if self.environment.globals().any(|(global, _)| global == name.id) => {}
            Expr::Var(name) => self.mistake(span, format!("there is no function {:?}", name.id)),
            Expr::GetAttr(method) if matches!(&method.expr, Expr::Var(var) if self.assigned.contains(var.id)) => {}
            _ => self.mistake(span, "values have no methods, use a filter: {{ name | upper }}"),
        }
        self.arguments(arguments);
    }

    fn arguments(&mut self, arguments: &[CallArg<'a>]) {
        self.expressions(arguments.iter().map(|argument| match argument {
            CallArg::Pos(value) | CallArg::Kwarg(_, value) | CallArg::PosSplat(value) | CallArg::KwargSplat(value) => {
                value
            }
        }));
    }

    fn assign(&mut self, target: &Expr<'a>) {
        match target {
            Expr::Var(variable) => {
                self.assigned.insert(variable.id);
            }
            Expr::List(list) => list.items.iter().for_each(|item| self.assign(item)),
            Expr::Tuple(tuple) => tuple.items.iter().for_each(|item| self.assign(item)),
            // `set space.name = …` changes a value; the space itself must be there.
            other => self.expression(other),
        }
    }

    fn is_row(&self, expression: &Expr<'_>) -> bool {
        matches!(expression, Expr::Var(variable) if variable.id == ROW && !self.assigned.contains(ROW))
    }

    fn column(&mut self, name: &str) {
        self.columns.insert(name.to_owned());
    }
}
