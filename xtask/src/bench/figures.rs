//! Figures: percentiles, rows of a table with what was promised, and the whole report.

use serde::Serialize;

use super::machine::Machine;
use super::plot::Plot;

/// Everything that one run measured.
#[derive(Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) quick: bool,
    pub(crate) parts: Vec<Part>,
    /// Parts that could not be measured, and why.
    pub(crate) failed: Vec<String>,
}

/// What one part measured.
#[derive(Serialize)]
pub(crate) struct Part {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    /// How it was measured, in a few sentences.
    pub(crate) how: String,
    pub(crate) rows: Vec<Row>,
    pub(crate) plots: Vec<Plot>,
}

/// One line of the table.
#[derive(Serialize)]
pub(crate) struct Row {
    pub(crate) what: String,
    /// The measured value, with its unit.
    pub(crate) value: String,
    /// The same as a number, for programs.
    pub(crate) number: f64,
    /// What it is to be seen beside: the same without KubeNap, the noise, or a limit.
    pub(crate) beside: String,
    /// Whether a promise was kept; none: nothing was promised.
    pub(crate) kept: Option<bool>,
}

impl Row {
    /// A value that nothing was promised of.
    pub(crate) fn new(
        what: impl Into<String>,
        number: f64,
        value: String,
        beside: impl Into<String>,
    ) -> Self {
        Self { what: what.into(), value, number, beside: beside.into(), kept: None }
    }

    /// With the promise.
    pub(crate) fn promised(self, kept: bool) -> Self {
        Self { kept: Some(kept), ..self }
    }

    pub(crate) fn verdict(&self) -> &'static str {
        match self.kept {
            Some(true) => "kept",
            Some(false) => "NOT KEPT",
            None => "",
        }
    }
}

impl Report {
    pub(crate) fn new(machine: Machine, quick: bool) -> Self {
        Self { machine, quick, parts: Vec::new(), failed: Vec::new() }
    }

    /// Everything was measured, and every promise kept.
    pub(crate) fn kept(&self) -> bool {
        self.failed.is_empty()
            && self.parts.iter().flat_map(|part| &part.rows).all(|row| row.kept != Some(false))
    }

    /// For a terminal.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        for part in &self.parts {
            text += &format!("\n({}) {}\n", part.name, part.title);
            let width =
                |of: fn(&Row) -> &str| part.rows.iter().map(|row| of(row).chars().count()).max().unwrap_or(0);
            let (what, value, beside) =
                (width(|row| &row.what), width(|row| &row.value), width(|row| &row.beside));
            for row in &part.rows {
                let line = format!(
                    "  {:<what$}  {:>value$}  {:<beside$}  {}",
                    row.what,
                    row.value,
                    row.beside,
                    row.verdict()
                );
                text += line.trim_end();
                text.push('\n');
            }
        }
        for failed in &self.failed {
            text += &format!("\nFAILED {failed}\n");
        }
        text
    }
}

/// Values in order.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Values(Vec<f64>);

impl Values {
    pub(crate) fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        Self(values)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn all(&self) -> &[f64] {
        &self.0
    }

    /// The value that this part (0 to 1) of all do not exceed; zero of nothing.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "counts of measurements are small"
    )]
    pub(crate) fn at(&self, part: f64) -> f64 {
        let rank = (part * self.0.len() as f64).ceil().max(1.0) as usize;
        self.0.get(rank - 1).or(self.0.last()).copied().unwrap_or(0.0)
    }

    pub(crate) fn median(&self) -> f64 {
        self.at(0.5)
    }
}

/// The mean of a few; zero of nothing.
#[expect(clippy::cast_precision_loss, reason = "counts of measurements are small")]
pub(crate) fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
}

/// How far single values are from their mean, at most, as a part of it: the noise of a run.
pub(crate) fn spread(values: &[f64]) -> f64 {
    let mean = mean(values);
    values.iter().map(|value| (value / mean - 1.0).abs()).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::{Values, mean, spread};

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values = Values::of((1..=200).rev().map(f64::from).collect());
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} is not {b}");
        close(values.median(), 100.0);
        close(values.at(0.95), 190.0);
        close(values.at(0.99), 198.0);
        close(values.at(1.0), 200.0);
        close(Values::default().at(0.5), 0.0);
        close(mean(&[1.0, 3.0]), 2.0);
        close(spread(&[1.0, 3.0]), 0.5);
    }
}
