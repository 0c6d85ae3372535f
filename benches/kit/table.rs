//! The figures of a bench, said as they come and printed at the end.

/// The figures so far.
pub struct Table {
    bench: &'static str,
    rows: Vec<(String, f64, &'static str, String)>,
}

impl Table {
    /// Starts empty; `bench` names what is measured.
    pub fn of(bench: &'static str) -> Self {
        Self { bench, rows: Vec::new() }
    }

    /// Adds a row and says it. `reach` is what the project wants to reach.
    pub fn add(&mut self, what: impl Into<String>, value: f64, unit: &'static str, reach: impl Into<String>) {
        let (what, reach) = (what.into(), reach.into());
        eprintln!("{what}: {value:.3} {unit}");
        self.rows.push((what, value, unit, reach));
    }

    /// Prints all of it as a table.
    pub fn print(&self) {
        println!("| what | measured | reach |\n|---|---|---|");
        for (what, value, unit, reach) in &self.rows {
            println!("| {what} | {value:.2} {unit} | {reach} |");
        }
    }

    /// Returns everything as JSON.
    pub fn json(&self) -> String {
        let rows: Vec<serde_json::Value> = self
            .rows
            .iter()
            .map(|(what, value, unit, reach)| serde_json::json!({ "what": what, "value": value, "unit": unit, "reach": reach }))
            .collect();
        serde_json::json!({ "bench": self.bench, "rows": rows }).to_string()
    }
}
