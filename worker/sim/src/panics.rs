//! Panics are findings here: their text is kept, and nothing is printed for those that a run expects to catch.

use std::any::Any;
use std::cell::RefCell;
use std::sync::Once;

thread_local! {
    static QUIET: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs something that may panic; `Err` is what it said and where.
pub fn caught<T>(act: impl FnOnce() -> T) -> Result<T, String> {
    install();
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(act)).map_err(|panic| text(&*panic))
}

/// What a panic said, with its place where that is known.
pub fn text(panic: &(dyn Any + Send)) -> String {
    if let Some(text) = QUIET.with(|text| text.borrow_mut().take()) {
        return text;
    }
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without a text".into())
}

/// Keeps panics of this crate's threads off the terminal, once per process.
pub fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let ours = info.location().is_some_and(|location| location.file().contains("engine"));
            QUIET.with(|text| *text.borrow_mut() = Some(info.to_string()));
            if !ours {
                before(info);
            }
        }));
    });
}
