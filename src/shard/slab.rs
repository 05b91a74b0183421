//! A vector with a free list: stable indices, bounded size, and a generation per index.
//!
//! The generation tells a late event for a former occupant from one for the present one: the kernel hands
//! back what we gave it (`user_data`) at a time of its own choosing.

/// An index with the generation of its occupant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Position, for arrays that run in parallel.
    pub index: u32,
    /// Which occupant of that position, modulo 2²⁴: it shares `user_data` with the index and an operation.
    pub generation: u32,
}

/// Generations wrap here: 24 bits.
pub const GENERATION_MASK: u32 = (1 << 24) - 1;

/// At most `capacity` values.
#[derive(Debug)]
pub struct Slab<T> {
    entries: Vec<Entry<T>>,
    free: Vec<u32>,
    capacity: u32,
}

#[derive(Debug)]
struct Entry<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Slab<T> {
    /// An empty slab; memory is taken as it fills.
    #[must_use]
    pub const fn new(capacity: u32) -> Self {
        Self { entries: Vec::new(), free: Vec::new(), capacity }
    }

    /// Stores `value`, or gives it back if the slab is full.
    pub fn insert(&mut self, value: T) -> Result<Key, T> {
        if let Some(index) = self.free.pop() {
            let entry = &mut self.entries[index as usize];
            entry.value = Some(value);
            return Ok(Key { index, generation: entry.generation });
        }
        let Some(index) = u32::try_from(self.entries.len()).ok().filter(|index| *index < self.capacity)
        else {
            return Err(value);
        };
        self.entries.push(Entry { generation: 0, value: Some(value) });
        Ok(Key { index, generation: 0 })
    }

    /// Takes the value out; its key is void from now on.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        let entry =
            self.entries.get_mut(key.index as usize).filter(|entry| entry.generation == key.generation)?;
        let value = entry.value.take()?;
        entry.generation = (entry.generation + 1) & GENERATION_MASK;
        self.free.push(key.index);
        Some(value)
    }

    /// The value of `key`, unless it is gone.
    pub fn at(&mut self, key: Key) -> Option<&mut T> {
        let entry = self.entries.get_mut(key.index as usize)?;
        if entry.generation == key.generation { entry.value.as_mut() } else { None }
    }

    /// The key of the present occupant of `index`.
    #[must_use]
    pub fn key_at(&self, index: u32) -> Option<Key> {
        let entry = self.entries.get(index as usize)?;
        entry.value.is_some().then_some(Key { index, generation: entry.generation })
    }

    /// The keys of all values.
    pub fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        (0..)
            .zip(&self.entries)
            .filter(|(_, entry)| entry.value.is_some())
            .map(|(index, entry)| Key { index, generation: entry.generation })
    }

    /// How many values there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_dies_with_its_value() {
        let mut slab = Slab::new(2);
        let first = slab.insert('a').unwrap();
        let second = slab.insert('b').unwrap();
        assert_eq!(slab.insert('c'), Err('c'), "full");
        assert_eq!(slab.remove(first), Some('a'));
        let third = slab.insert('d').unwrap();
        assert_eq!(third.index, first.index);
        assert_eq!(slab.at(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.at(third).copied(), Some('d'));
        assert_eq!(slab.keys().collect::<Vec<_>>(), [third, second]);
        assert_eq!(slab.len(), 2);
    }

    #[test]
    fn generations_wrap() {
        let mut slab = Slab::new(1);
        let first = slab.insert(()).unwrap();
        slab.remove(first);
        slab.entries[0].generation = GENERATION_MASK;
        let last = slab.insert(()).unwrap();
        slab.remove(last);
        assert_eq!(slab.insert(()).unwrap().generation, 0);
    }
}
