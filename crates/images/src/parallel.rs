//! Some work on each of several things, a few of them at once.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// Does `work` on every item, on `at_once` threads at the most. Returns what it gave, in the order of the items; after a failure no
/// further item is begun, and the first thread's failure is returned when all have ended.
pub(crate) fn each<I: Send, T: Send, E: Send>(
    items: Vec<I>,
    at_once: usize,
    work: impl Fn(I) -> Result<T, E> + Sync,
) -> Result<Vec<T>, E> {
    let workers = items.len().min(at_once);
    let items = items.into_iter().enumerate();
    let queue = Mutex::new(items.collect::<VecDeque<_>>());
    let queue = || queue.lock().unwrap_or_else(PoisonError::into_inner);
    let labour = || {
        let mut done = Vec::new();
        loop {
            // The queue is free again before the work begins.
            let next = queue().pop_front();
            let Some((at, item)) = next else {
                return Ok(done);
            };
            match work(item) {
                Ok(result) => done.push((at, result)),
                Err(error) => {
                    queue().clear();
                    return Err(error);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(labour)).collect();
        let ended = threads.into_iter().map(|thread| {
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        let ended: Vec<Result<Vec<(usize, T)>, E>> = ended.collect();
        let done: Vec<Vec<(usize, T)>> = ended.into_iter().collect::<Result<_, E>>()?;
        let mut done: Vec<(usize, T)> = done.into_iter().flatten().collect();
        done.sort_unstable_by_key(|(at, _)| *at);
        Ok(done.into_iter().map(|(_, result)| result).collect())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn every_item_is_done_once() {
        let done = each((0..100).collect(), 3, |n| Ok::<u32, ()>(n * 2)).unwrap();
        assert_eq!(done, (0..100).map(|n| n * 2).collect::<Vec<_>>());
        let none = each(Vec::<u32>::new(), 3, Ok::<u32, ()>).unwrap();
        assert!(none.is_empty());
    }

    #[test]
    fn after_a_failure_nothing_is_begun() {
        let begun = AtomicU32::new(0);
        let failed = each((0..100).collect(), 1, |n: u32| {
            begun.fetch_add(1, Ordering::Relaxed);
            if n == 4 { Err("no") } else { Ok(n) }
        });
        assert_eq!((failed, begun.into_inner()), (Err("no"), 5));
    }
}
