//! Numbered places for the links and sessions of a client.

/// Values under numbers. A number stays while its value does, and is given again afterwards.
///
/// It takes no more memory than for as many values as there were at once: most clients have a few.
#[derive(Debug)]
pub(super) struct Slots<T>(Vec<Option<Box<T>>>);

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Slots<T> {
    /// Puts a value into the first free place and returns its number.
    pub fn insert(&mut self, value: T) -> u32 {
        let value = Some(Box::new(value));
        // As many as there are descriptors or session ids at the most: they can be numbered.
        let free = self.0.iter().position(Option::is_none).unwrap_or(self.0.len());
        match self.0.get_mut(free) {
            Some(place) => *place = value,
            None => {
                // A quarter more, and for a few values no place that is not used.
                self.0.reserve_exact(1 + self.0.len() / 4);
                self.0.push(value);
            }
        }
        free as u32
    }

    /// Puts a value under a number; returns false if there is one.
    pub fn put(&mut self, number: u32, value: T) -> bool {
        let at = number as usize;
        if self.0.len() <= at {
            self.0.resize_with(at + 1, || None);
        }
        match self.0.get_mut(at) {
            Some(place) if place.is_none() => *place = Some(Box::new(value)),
            _ => return false,
        }
        true
    }

    /// Returns the value of that number.
    pub fn get(&self, number: u32) -> Option<&T> {
        self.0.get(number as usize)?.as_deref()
    }

    /// Returns the value of that number, to change it.
    pub fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        self.0.get_mut(number as usize)?.as_deref_mut()
    }

    /// Takes the value of that number out.
    pub fn remove(&mut self, number: u32) -> Option<T> {
        let value = self.0.get_mut(number as usize)?.take()?;
        while self.0.pop_if(|last| last.is_none()).is_some() {}
        Some(*value)
    }

    /// Returns all values, to change them.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut().filter_map(Option::as_deref_mut)
    }

    /// Returns a number that is greater than those of all values.
    pub fn end(&self) -> u32 {
        self.0.len() as u32
    }

    /// Returns all values.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.0.iter().filter_map(Option::as_deref)
    }

    /// Returns whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_stays_while_its_value_does_and_is_given_again_afterwards() {
        let mut slots = Slots::default();
        let numbers = ["a", "b", "c"].map(|value| slots.insert(value));
        assert_eq!(numbers, [0, 1, 2]);
        assert_eq!(slots.remove(1), Some("b"));
        assert_eq!(slots.get(1), None);
        assert_eq!(slots.remove(1), None);
        assert_eq!(slots.get(2), Some(&"c"));
        assert_eq!(slots.insert("d"), 1);
        assert_eq!(slots.values_mut().collect::<Vec<_>>(), [&"a", &"d", &"c"]);
        for number in [2, 0, 1] {
            slots.remove(number);
        }
        assert!(slots.is_empty());
        assert_eq!(slots.insert("e"), 0);
    }

    #[test]
    fn few_values_take_no_place_that_is_not_used() {
        let mut slots = Slots::default();
        for number in 0..4 {
            slots.insert(number);
            assert_eq!(slots.0.capacity(), slots.0.len());
        }
    }
}
