//! `kctl top`: a live view of kernels and processes.

mod sample;
mod view;

use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};

use self::sample::{Sample, Sort, Span};
use self::view::Choice;

/// Looks twice, `pause` apart, and prints what happened between.
pub fn once(pause: Duration, json: bool) -> Result<(), String> {
    let before = Sample::take()?;
    std::thread::sleep(pause);
    let mut span = Span::between(&before, &Sample::take()?);
    span.arrange(Sort::Busy, None);
    crate::print(json, &span, || view::text(&span))
}

/// Shows the screen until the person has enough.
pub fn live(pause: Duration) -> Result<(), String> {
    // Before the screen changes: what goes wrong is said on the old one.
    let before = Sample::take()?;
    let mut terminal = ratatui::try_init().map_err(|e| format!("no terminal to draw on: {e}; try --once"))?;
    let ended = show(&mut terminal, before, pause);
    let restored = ratatui::try_restore().map_err(|e| format!("the terminal: {e}"));
    ended.and(restored)
}

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Quit,
    Sort,
    Kernel,
    Up,
    Down,
    Pause,
}

fn key(code: KeyCode, modifiers: KeyModifiers) -> Option<Key> {
    match code {
        KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => Some(Key::Quit),
        KeyCode::Char('q') | KeyCode::Esc => Some(Key::Quit),
        KeyCode::Char('s') => Some(Key::Sort),
        KeyCode::Char('k') => Some(Key::Kernel),
        KeyCode::Char(' ') => Some(Key::Pause),
        KeyCode::Up => Some(Key::Up),
        KeyCode::Down => Some(Key::Down),
        _ => None,
    }
}

/// The kernel after this one; after the last one all.
fn next_kernel(kernels: &[u64], only: Option<u64>) -> Option<u64> {
    match only {
        None => kernels.first().copied(),
        Some(id) => kernels.iter().copied().find(|other| *other > id),
    }
}

fn show(terminal: &mut ratatui::DefaultTerminal, first: Sample, pause: Duration) -> Result<(), String> {
    let broken = |e: std::io::Error| format!("the terminal: {e}");
    let mut choice = Choice { sort: Sort::Busy, only: None, first: 0, paused: false };
    let (mut before, mut after) = (None, first);
    loop {
        // The first screen has no span yet: it counts from the moment itself.
        let mut span = Span::between(before.as_ref().unwrap_or(&after), &after);
        let kernels: Vec<u64> = span.kernels.iter().map(|row| row.id).collect();
        span.arrange(choice.sort, choice.only);
        choice.first = choice.first.min(span.processes.len().saturating_sub(1));
        terminal.draw(|frame| view::draw(frame, &span, choice)).map_err(broken)?;
        let due = after.at + pause;
        let left =
            if choice.paused { Duration::from_secs(3600) } else { due.saturating_duration_since(Instant::now()) };
        if event::poll(left).map_err(broken)? {
            let Event::Key(pressed) = event::read().map_err(broken)? else { continue };
            if pressed.kind == KeyEventKind::Release {
                continue;
            }
            match key(pressed.code, pressed.modifiers) {
                Some(Key::Quit) => return Ok(()),
                Some(Key::Sort) => choice.sort = choice.sort.next(),
                Some(Key::Kernel) => choice.only = next_kernel(&kernels, choice.only),
                Some(Key::Up) => choice.first = choice.first.saturating_sub(1),
                Some(Key::Down) => choice.first += 1,
                Some(Key::Pause) => choice.paused = !choice.paused,
                None => {}
            }
        } else if !choice.paused {
            before = Some(std::mem::replace(&mut after, Sample::take()?));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_kernels() {
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Key::Quit));
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::NONE), None);
        assert_eq!(key(KeyCode::Char('k'), KeyModifiers::NONE), Some(Key::Kernel));
        let all = [0, 1, 3];
        let mut seen = vec![None];
        for _ in 0..4 {
            seen.push(next_kernel(&all, seen[seen.len() - 1]));
        }
        assert_eq!(seen, [None, Some(0), Some(1), Some(3), None]);
    }
}
