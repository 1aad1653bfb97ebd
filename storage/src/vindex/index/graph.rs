//! Graphs of vectors: for each level of a layer's graph, which vectors each vector is joined with.
//!
//! One section a layer, little-endian `u32`: how many levels there are, the vector that a search enters
//! by, then for each level, the lowest first, where each vector's neighbours end (one number a vector)
//! and the neighbours of all of them, one vector after another. A layer without vectors has an empty
//! section.
//!
//! Promises: a graph that parses joins vectors of the layer only, and has an entry where it has vectors.
//! That every vector can be reached is not promised: what a search misses is measured when the graph is
//! made.
//!
//! Elsewhere: how a graph is made and walked (`larqld/src/indexes/hnsw.rs`).

/// Most levels of a graph; level L holds about one vector in 16^L.
pub const LEVELS_MAX: usize = 16;

/// The neighbours of every vector of a layer, by level.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Graph {
    entry: u32,
    levels: Vec<Level>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Level {
    /// Where the neighbours of each vector end.
    ends: Vec<u32>,
    neighbours: Vec<u32>,
}

impl Graph {
    /// A graph of neighbours `[level][vector]`, entered by `entry`.
    ///
    /// # Errors
    /// What [`Graph::read`] would refuse.
    pub fn new(entry: u32, levels: &[Vec<Vec<u32>>]) -> Result<Self, String> {
        let level = |lists: &Vec<Vec<u32>>| {
            let mut level = Level::default();
            for list in lists {
                level.neighbours.extend(list);
                let end = u32::try_from(level.neighbours.len());
                level.ends.push(end.map_err(|_| "it joins more than 2^32 pairs".to_owned())?);
            }
            Ok(level)
        };
        let levels = levels.iter().map(level).collect::<Result<Vec<Level>, String>>()?;
        let graph = Self { entry, levels };
        let vectors = graph.vectors();
        graph.checked(vectors)
    }

    /// Reads a section of a layer of so many vectors.
    ///
    /// # Errors
    /// What is wrong with it, by the first thing that is.
    pub fn read(bytes: &[u8], vectors: usize) -> Result<Self, String> {
        let cut = || "it ends within a graph".to_owned();
        if vectors == 0 && bytes.is_empty() {
            return Ok(Self::default());
        }
        let (words, rest) = bytes.as_chunks::<4>();
        if !rest.is_empty() {
            return Err(cut());
        }
        let mut words = words.iter().map(|&bytes| u32::from_le_bytes(bytes));
        let (Some(count), Some(entry)) = (words.next(), words.next()) else { return Err(cut()) };
        if count as usize > LEVELS_MAX {
            return Err(format!("it has {count} levels, and {LEVELS_MAX} is the most"));
        }
        let mut levels = Vec::with_capacity(count as usize);
        for _ in 0..count {
            if words.len() < vectors {
                return Err(cut());
            }
            let ends: Vec<u32> = words.by_ref().take(vectors).collect();
            let joined = ends.last().copied().unwrap_or(0) as usize;
            if words.len() < joined {
                return Err(cut());
            }
            levels.push(Level { ends, neighbours: words.by_ref().take(joined).collect() });
        }
        if words.len() > 0 {
            return Err("there is more in it than its levels say".to_owned());
        }
        Self { entry, levels }.checked(vectors)
    }

    /// The section that [`Graph::read`] reads.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut words = Vec::new();
        if !self.levels.is_empty() {
            words.extend([self.levels.len() as u32, self.entry]);
        }
        for level in &self.levels {
            words.extend(&level.ends);
            words.extend(&level.neighbours);
        }
        words.into_iter().flat_map(u32::to_le_bytes).collect()
    }

    /// The vector that a search enters by, on the highest level.
    pub fn entry(&self) -> u32 {
        self.entry
    }

    /// How many vectors there are.
    pub fn vectors(&self) -> usize {
        self.levels.first().map_or(0, |level| level.ends.len())
    }

    /// How many levels there are.
    pub fn levels(&self) -> usize {
        self.levels.len()
    }

    /// The vectors that one is joined with on a level; none where there is no such level or vector.
    pub fn neighbours(&self, level: usize, vector: u32) -> &[u32] {
        let Some(level) = self.levels.get(level) else { return &[] };
        let vector = vector as usize;
        let Some(&end) = level.ends.get(vector) else { return &[] };
        let start = vector.checked_sub(1).map_or(0, |before| level.ends[before]);
        &level.neighbours[start as usize..end as usize]
    }

    fn checked(self, vectors: usize) -> Result<Self, String> {
        if vectors > 0 && (self.levels.is_empty() || self.entry as usize >= vectors) {
            return Err("it cannot be entered".to_owned());
        }
        for level in &self.levels {
            let ascends = level.ends.windows(2).all(|pair| pair[0] <= pair[1]);
            let last = level.ends.last().copied().unwrap_or(0) as usize;
            if level.ends.len() != vectors || !ascends || last != level.neighbours.len() {
                return Err("its lists of neighbours are out of order".to_owned());
            }
            if level.neighbours.iter().any(|&one| one as usize >= vectors) {
                return Err("it joins a vector that there is not".to_owned());
            }
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Graph {
        let low = vec![vec![1, 2], vec![0], vec![0, 1]];
        Graph::new(2, &[low, vec![vec![2], vec![], vec![0]]]).expect("a graph")
    }

    #[test]
    fn a_graph_comes_back_from_its_bytes() {
        let graph = example();
        let back = Graph::read(&graph.to_bytes(), 3).expect("what was written");
        assert_eq!(back, graph);
        assert_eq!((back.entry(), back.levels(), back.vectors()), (2, 2, 3));
        assert_eq!(back.neighbours(0, 2), [0, 1]);
        assert_eq!(back.neighbours(1, 1), [0_u32; 0]);
        assert_eq!(back.neighbours(2, 0), [0_u32; 0]);
        assert_eq!(Graph::read(&[], 0), Ok(Graph::default()));
        assert!(Graph::default().to_bytes().is_empty());
    }

    #[test]
    fn whatever_the_bytes_a_graph_that_parses_joins_vectors_of_the_layer() {
        let bytes = example().to_bytes();
        let mut read = 0;
        for end in 0..bytes.len() {
            assert!(Graph::read(&bytes[..end], 3).is_err(), "cut at {end}");
        }
        for at in 0..bytes.len() {
            for value in [0, 1, 2, 3, 4, 16, 127, 255] {
                let mut bytes = bytes.clone();
                bytes[at] = value;
                let Ok(graph) = Graph::read(&bytes, 3) else { continue };
                read += 1;
                assert!(graph.entry() < 3);
                let all = (0..graph.levels()).flat_map(|level| {
                    (0..3).flat_map(|vector| graph.neighbours(level, vector)).collect::<Vec<_>>()
                });
                assert!(all.into_iter().all(|&one| one < 3));
            }
        }
        assert!(read > 10, "{read} graphs parsed");
        assert!(Graph::read(&bytes, 2).is_err() && Graph::read(&bytes, 4).is_err());
        assert!(Graph::new(3, &[vec![vec![], vec![], vec![]]]).is_err());
        assert!(Graph::new(0, &[vec![vec![1]]]).is_err());
    }
}
