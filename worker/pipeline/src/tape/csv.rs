//! One line of CSV into a tape: an object with a member for each column.

use forebay_crds::pipeline::{Csv, CsvType};

use super::{Node, Span, Tape};

/// The columns, and a reader with its buffers.
#[derive(Debug)]
pub(crate) struct CsvReader {
    reader: csv_core::Reader,
    columns: Vec<(String, CsvType)>,
    cells: Vec<u8>,
    ends: Vec<usize>,
}

impl CsvReader {
    /// The delimiter must be one ASCII character, which the check of the manifest sees to.
    pub(crate) fn new(csv: &Csv) -> Self {
        let delimiter = csv.delimiter.as_bytes().first().copied().unwrap_or(b',');
        let columns: Vec<_> = csv.columns.iter().map(|column| (column.name.clone(), column.kind)).collect();
        let ends = vec![0; columns.len() + 1];
        Self { reader: csv_core::ReaderBuilder::new().delimiter(delimiter).build(), columns, cells: Vec::new(), ends }
    }

    /// Reads one line, with or without its end. `Err` says what is wrong with it.
    pub(crate) fn parse(&mut self, text: &str, tape: &mut Tape) -> Result<(), String> {
        tape.clear();
        let cells = self.split(text)?;
        if cells != self.columns.len() {
            return Err(format!(
                "the line has {} columns instead of {}",
                if cells > self.columns.len() { "more" } else { "fewer" },
                self.columns.len()
            ));
        }
        let at = tape.open();
        let mut from = 0;
        for ((name, kind), end) in self.columns.iter().zip(&self.ends) {
            let cell = std::str::from_utf8(&self.cells[from..*end]).map_err(|_| format!("column {name} is cut inside a character"))?;
            from = *end;
            tape.push_own_key(name);
            let node = convert(cell, *kind, tape).ok_or_else(|| format!("column {name}: {cell:?} is not {}", describe(*kind)))?;
            tape.nodes.push(node);
        }
        tape.close(at, |end| Node::Object { end, text: Span::NONE });
        Ok(())
    }

    /// Returns the number of cells, at most one more than there are columns.
    fn split(&mut self, text: &str) -> Result<usize, String> {
        self.reader.reset();
        // Cells are never longer than the text they come from.
        self.cells.resize(text.len(), 0);
        let (mut input, mut written, mut ended) = (text.as_bytes(), 0, 0);
        loop {
            let (result, read, wrote, ends) = self.reader.read_record(input, &mut self.cells[written..], &mut self.ends[ended..]);
            input = &input[read..];
            written += wrote;
            ended += ends;
            match result {
                // An empty input is how the reader is told of the end.
                csv_core::ReadRecordResult::InputEmpty => {}
                csv_core::ReadRecordResult::OutputFull => return Err("the line cannot be split into columns".into()),
                csv_core::ReadRecordResult::OutputEndsFull => return Ok(self.columns.len() + 1),
                csv_core::ReadRecordResult::Record if input.iter().all(|byte| matches!(byte, b'\r' | b'\n')) => return Ok(ended),
                csv_core::ReadRecordResult::Record => return Err("the value holds more than one line".into()),
                csv_core::ReadRecordResult::End => return Err("the value holds no line".into()),
            }
        }
    }
}

fn convert(cell: &str, kind: CsvType, tape: &mut Tape) -> Option<Node> {
    Some(match kind {
        CsvType::String => Node::Text(tape.intern(cell)),
        CsvType::Integer | CsvType::Number | CsvType::Boolean if cell.is_empty() => Node::Null,
        CsvType::Integer => Node::Int(cell.parse().ok()?),
        CsvType::Number => match cell.parse() {
            Ok(whole) => Node::Int(whole),
            Err(_) => Node::Float(cell.parse().ok().filter(|number: &f64| number.is_finite())?),
        },
        CsvType::Boolean => Node::Bool(cell.parse().ok()?),
    })
}

fn describe(kind: CsvType) -> &'static str {
    match kind {
        CsvType::String => "a string",
        CsvType::Integer => "an integer",
        CsvType::Number => "a number",
        CsvType::Boolean => "true or false",
    }
}
