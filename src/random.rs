//! Random bytes: a port, so that a simulation draws them from its seed.

use std::cell::RefCell;

/// Fills a buffer with random bytes.
type Source = Box<dyn FnMut(&mut [u8]) -> Result<(), getrandom::Error>>;

thread_local! {
    static SOURCE: RefCell<Source> = RefCell::new(Box::new(getrandom::getrandom));
}

/// Replaces the source of this thread, which is the kernel.
pub fn set_source(mut fill: impl FnMut(&mut [u8]) + 'static) {
    SOURCE.set(Box::new(move |buffer| {
        fill(buffer);
        Ok(())
    }));
}

/// Random bytes.
///
/// # Errors
///
/// The kernel has none.
pub fn bytes<const N: usize>() -> Result<[u8; N], getrandom::Error> {
    let mut bytes = [0; N];
    SOURCE.with_borrow_mut(|fill| fill(&mut bytes))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_differ_each_time_unless_the_source_is_replaced() {
        assert_ne!(bytes::<16>().unwrap(), bytes::<16>().unwrap());
        let mut next = 0;
        set_source(move |buffer| {
            next += 1;
            buffer.fill(next);
        });
        assert_eq!((bytes(), bytes()), (Ok([1; 4]), Ok([2; 4])));
    }
}
