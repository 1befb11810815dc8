//! What a terminal makes of what we print: nothing but these letters, in this order, one in each cell. Not here: what is printed.

use std::num::NonZeroU16;

use vt100::{Callbacks, Parser, Screen};

/// Columns of the terminal.
const COLUMNS: u16 = 80;

/// What a terminal was told to do beside showing letters.
#[derive(Default)]
struct Events(Vec<&'static str>);

impl Callbacks for Events {
    fn audible_bell(&mut self, _: &mut Screen) {
        self.0.push("rang");
    }
    fn visual_bell(&mut self, _: &mut Screen) {
        self.0.push("flashed");
    }
    fn resize(&mut self, _: &mut Screen, _: (u16, u16)) {
        self.0.push("was resized");
    }
    fn set_window_icon_name(&mut self, _: &mut Screen, _: &[u8]) {
        self.0.push("has another icon");
    }
    fn set_window_title(&mut self, _: &mut Screen, _: &[u8]) {
        self.0.push("has another title");
    }
    fn copy_to_clipboard(&mut self, _: &mut Screen, _: &[u8], _: &[u8]) {
        self.0.push("wrote the clipboard");
    }
    fn paste_from_clipboard(&mut self, _: &mut Screen, _: &[u8]) {
        self.0.push("read the clipboard");
    }
    fn unhandled_char(&mut self, _: &mut Screen, _: char) {
        self.0.push("met a letter that is none");
    }
    fn unhandled_control(&mut self, _: &mut Screen, _: u8) {
        self.0.push("met a control");
    }
    fn unhandled_escape(&mut self, _: &mut Screen, _: Option<u8>, _: Option<u8>, _: u8) {
        self.0.push("met an escape sequence");
    }
    fn unhandled_csi(&mut self, _: &mut Screen, _: Option<u8>, _: Option<u8>, _: &[&[u16]], _: char) {
        self.0.push("met a control sequence");
    }
    fn unhandled_osc(&mut self, _: &mut Screen, _: &[&[u8]]) {
        self.0.push("met an operating system command");
    }
}

/// Shows a text of whole lines in a new terminal.
///
/// # Errors
/// What is on the screen beside the text, or instead of it, or what else has happened.
pub fn shows_only(text: &str) -> Result<(), String> {
    // Wide letters take two columns, and none is cut in two at the edge.
    let rows = text
        .split('\n')
        .map(|line| line.chars().count() * 2 / usize::from(COLUMNS - 1) + 1);
    let rows = u16::try_from(rows.sum::<usize>()).map_err(|_| "more than a screen can hold".to_owned())?;
    let size = |number: u16| NonZeroU16::new(number).ok_or("no screen");
    let terminal = || -> Result<_, String> {
        let events = Events::default();
        Ok(Parser::new_with_callbacks(size(rows)?, size(COLUMNS)?, 0, events))
    };
    let (fresh, mut terminal) = (terminal()?, terminal()?);
    // What the kernel makes of a line's end.
    terminal.process(text.replace('\n', "\r\n").as_bytes());
    if let Some(event) = terminal.callbacks().0.first() {
        return Err(format!("it {event}"));
    }
    let (fresh, screen) = (fresh.screen(), terminal.screen());
    if screen.alternate_screen()
        || screen.hide_cursor()
        || screen.input_mode_formatted() != fresh.input_mode_formatted()
    {
        return Err("it is in another mode".to_owned());
    }
    if screen.attributes_formatted() != fresh.attributes_formatted() {
        return Err("it goes on writing in another way".to_owned());
    }
    let cursor = walk(screen, fresh, text)?;
    if screen.cursor_position() != cursor {
        return Err(format!(
            "its cursor is at {:?} and not at {cursor:?}",
            screen.cursor_position()
        ));
    }
    Ok(())
}

/// Goes over the cells as the text does: each letter stands alone in the next one, and nothing else is anywhere. Returns where the cursor belongs.
fn walk(screen: &Screen, fresh: &Screen, text: &str) -> Result<(u16, u16), String> {
    let (mut row, mut column) = (0, 0);
    let blank = |row: u16, columns: std::ops::Range<u16>| {
        let mut cells = columns.filter_map(|column| screen.cell(row, column));
        if cells.any(vt100::Cell::has_contents) {
            return Err(format!("row {row} holds more than the text"));
        }
        Ok(())
    };
    for (at, letter) in text.chars().enumerate() {
        if letter == '\n' {
            blank(row, column..COLUMNS)?;
            (row, column) = (row + 1, 0);
            continue;
        }
        let is = |row, column, what: fn(&vt100::Cell) -> bool| screen.cell(row, column).is_some_and(what);
        // A wide letter that doesn't fit any more leaves a column free.
        let cut = column + 1 == COLUMNS
            && !is(row, column, vt100::Cell::has_contents)
            && is(row + 1, 0, vt100::Cell::is_wide);
        if column == COLUMNS || cut {
            (row, column) = (row + 1, 0);
        }
        let cell = screen.cell(row, column).ok_or("the text goes on below the screen")?;
        if !cell.contents().chars().eq([letter]) {
            let shown = cell.contents();
            return Err(format!("letter {at} is shown as {shown:?} and not as {letter:?}"));
        }
        if style(cell) != fresh.cell(0, 0).map(style).ok_or("no cell")? {
            return Err(format!("letter {at} is written in another way"));
        }
        column += if cell.is_wide() { 2 } else { 1 };
    }
    let last = row;
    blank(last, column..COLUMNS)?;
    (last + 1..screen.size().0.get()).try_for_each(|row| blank(row, 0..COLUMNS))?;
    Ok((row, column))
}

/// How a cell is written.
fn style(cell: &vt100::Cell) -> (vt100::Color, vt100::Color, [bool; 5]) {
    let flags = [cell.bold(), cell.dim(), cell.italic(), cell.underline(), cell.inverse()];
    (cell.fgcolor(), cell.bgcolor(), flags)
}
