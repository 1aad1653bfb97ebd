//! The latest of what is made by key, bounded by what it takes.
//!
//! A value is made once for all who ask for its key at a time; who asks for another key does not wait for that.
//! Whoever holds a value has it for as long as they hold it, kept here or not.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

/// Values by key, the latest that were asked for.
#[derive(Debug)]
pub(super) struct Latest<K, V> {
    /// What was asked for last comes last.
    places: Mutex<VecDeque<Arc<Place<K, V>>>>,
    bytes_max: usize,
    count_max: usize,
}

/// A value's place, from the moment that somebody makes it.
#[derive(Debug)]
struct Place<K, V> {
    key: K,
    /// With the bytes that it takes.
    made: Mutex<Option<(Arc<V>, usize)>>,
}

impl<K: PartialEq + Clone, V> Latest<K, V> {
    /// Keeps at most so many values, of so many bytes together; and the very last, whatever it takes.
    pub(super) fn new(bytes_max: usize, count_max: usize) -> Self {
        Self { places: Mutex::default(), bytes_max, count_max }
    }

    /// The value of a key, made where it is not kept; `bytes` says what one takes.
    ///
    /// # Errors
    /// Those of `make`: then nothing is kept, and the next who asks makes it.
    pub(super) fn get<E>(
        &self,
        key: &K,
        bytes: impl FnOnce(&V) -> usize,
        make: impl FnOnce() -> Result<V, E>,
    ) -> Result<Arc<V>, E> {
        let place = self.place(key);
        let mut made = place.made.lock();
        if let Some((value, _)) = &*made {
            return Ok(value.clone());
        }
        let value = Arc::new(make()?);
        *made = Some((value.clone(), bytes(&value)));
        drop(made);
        self.forget();
        Ok(value)
    }

    /// The place of a key, which is the last now.
    fn place(&self, key: &K) -> Arc<Place<K, V>> {
        let mut places = self.places.lock();
        let there = places.iter().position(|place| place.key == *key);
        let place = there
            .and_then(|at| places.remove(at))
            .unwrap_or_else(|| Arc::new(Place { key: key.clone(), made: Mutex::new(None) }));
        places.push_back(place.clone());
        place
    }

    /// Forgets what was asked for longest ago, until the rest fits.
    fn forget(&self) {
        let mut places = self.places.lock();
        let mut bytes = 0_usize;
        let fitting = places.iter().rev().take_while(|place| {
            // Of what is being made nothing is kept yet.
            let made = place.made.try_lock();
            let taken = made.and_then(|made| made.as_ref().map(|(_, bytes)| *bytes));
            bytes = bytes.saturating_add(taken.unwrap_or(0));
            bytes <= self.bytes_max
        });
        let kept = fitting.count().clamp(1, self.count_max);
        let gone = places.len().saturating_sub(kept);
        places.drain(..gone);
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::mpsc;

    use super::*;

    /// A value that says its bytes, and how often it was made.
    fn get(latest: &Latest<u64, usize>, key: u64, bytes: usize, made: &mut usize) {
        let make = || {
            *made += 1;
            Ok::<_, Infallible>(bytes)
        };
        let value = latest.get(&key, |bytes| *bytes, make).expect("it is made");
        assert_eq!(*value, bytes);
    }

    #[test]
    fn a_value_is_made_once_and_made_again_when_others_took_its_bytes() {
        let latest = Latest::new(10, 99);
        let mut made = 0;
        (0..2).for_each(|_| get(&latest, 1, 4, &mut made));
        assert_eq!(made, 1);
        // The first was asked for again, so the second goes for the third.
        for (key, wanted) in [(2, 2), (1, 2), (3, 3), (1, 3), (2, 4)] {
            get(&latest, key, 4, &mut made);
            assert_eq!(made, wanted, "after {key}");
        }
    }

    #[test]
    fn the_last_is_kept_whatever_it_takes_and_small_ones_are_counted() {
        let (latest, mut made) = (Latest::new(10, 2), 0);
        (0..2).for_each(|_| get(&latest, 1, 1000, &mut made));
        assert_eq!((made, latest.places.lock().len()), (1, 1));
        (2..9).for_each(|key| get(&latest, key, 0, &mut made));
        assert_eq!(latest.places.lock().len(), 2);
    }

    #[test]
    fn what_could_not_be_made_is_made_by_the_next_who_asks() {
        let (latest, mut made) = (Latest::new(10, 9), 0);
        let failed = latest.get(&1, |bytes: &usize| *bytes, || Err("no memory"));
        assert_eq!(failed, Err("no memory"));
        get(&latest, 1, 4, &mut made);
        assert_eq!(made, 1);
    }

    #[test]
    fn who_asks_for_one_does_not_wait_for_another_that_is_being_made() {
        let latest = Latest::new(10, 9);
        let (begun, begins) = mpsc::channel();
        let (go, gone) = mpsc::channel::<()>();
        std::thread::scope(|scope| {
            let slow = scope.spawn(|| {
                let make = move || {
                    begun.send(()).expect("somebody waits");
                    gone.recv()
                };
                latest.get(&1, |()| 1, make).map(drop)
            });
            begins.recv().expect("it begins");
            let quick = latest.get(&2, |()| 1, || Ok::<_, Infallible>(()));
            assert!(quick.is_ok() && !slow.is_finished());
            go.send(()).expect("it waits");
            assert_eq!(slow.join().expect("no panic"), Ok(()));
        });
    }
}
