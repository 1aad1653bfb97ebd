//! The facts that edits change and the prompts that judge them; nothing here is read by the editor.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use larql_storage::overlay::Fact;

use super::Problem;

/// Prompts that an edit must not change, of each edit.
pub const NEIGHBOURS: usize = 50;
/// Names that no table has.
const INVENTED: [&str; 24] = [
    "Zorvania",
    "Meldoria",
    "Quistan",
    "Trellonia",
    "Vandoria",
    "Ostrelia",
    "Karvonia",
    "Lumeria",
    "Bravania",
    "Draxonia",
    "Elnoria",
    "Fenmark",
    "Galdovia",
    "Hestoria",
    "Ilvania",
    "Jorvania",
    "Kestonia",
    "Lorvenia",
    "Mordavia",
    "Norwenia",
    "Opalia",
    "Pelgravia",
    "Rustovia",
    "Sylvonia",
];
/// Relations of countries, which invented names are given.
const OF_COUNTRIES: [&str; 4] = ["capital", "language", "currency", "continent"];
/// Sentences about nothing that the table has.
const UNRELATED: [&str; 10] = [
    "The river runs through the",
    "She opened the door and",
    "In the morning they went to the",
    "My favourite colour is",
    "The train was late because",
    "He put the book on the",
    "Two plus two is",
    "The weather today is",
    "Once upon a time there was a",
    "The children were playing in the",
];

/// A prompt with what may follow it.
#[derive(Debug, Clone)]
pub struct Probe {
    pub held_out: bool,
    pub relation: String,
    pub entity: String,
    pub prompt: String,
    pub expected: Vec<String>,
}

/// A prompt that an edit must leave alone, and why it might not.
#[derive(Debug, Clone)]
pub struct Neighbour {
    pub kind: &'static str,
    pub prompt: String,
    /// Which (entity, relation) it asks for, where it does.
    pub asks: Option<(String, String)>,
}

/// A table of facts and the prompts about them.
pub struct Questions {
    facts: Vec<[String; 3]>,
    kinds: BTreeMap<String, String>,
    probes: Vec<Probe>,
    of_entity: BTreeMap<String, Vec<usize>>,
    of_relation: BTreeMap<String, Vec<usize>>,
    /// Sentences of a relation with `{entity}`, in words that the model was trained on, and others.
    sentences: BTreeMap<String, (Vec<String>, Vec<String>)>,
    state: u64,
}

impl Questions {
    /// Reads `facts.tsv`, `probes.tsv` and phrasings (relation, sentence).
    pub fn read(facts: &Path, probes: &Path, phrasings: &Path, seed: u64) -> Result<Self, Problem> {
        let mut questions = Self {
            facts: Vec::new(),
            kinds: BTreeMap::new(),
            probes: Vec::new(),
            of_entity: BTreeMap::new(),
            of_relation: BTreeMap::new(),
            sentences: BTreeMap::new(),
            state: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
        };
        for [entity, relation, object, _, kind] in rows(facts)? {
            questions.kinds.insert(entity.clone(), kind);
            questions.facts.push([entity, relation, object]);
        }
        let mut uses: BTreeMap<(String, bool, String), usize> = BTreeMap::new();
        for [split, relation, entity, prompt, expected] in rows(probes)? {
            let at = questions.probes.len();
            questions.of_entity.entry(entity.clone()).or_default().push(at);
            questions.of_relation.entry(relation.clone()).or_default().push(at);
            let held_out = split == "heldout";
            let sentence = prompt.replacen(&entity, "{entity}", 1);
            *uses.entry((relation.clone(), held_out, sentence)).or_default() += 1;
            let expected = expected.split(';').map(str::to_owned).collect();
            questions.probes.push(Probe { held_out, relation, entity, prompt, expected });
        }
        let mut uses: Vec<_> = uses.into_iter().collect();
        uses.sort_by_key(|(_, uses)| std::cmp::Reverse(*uses));
        for ((relation, held_out, sentence), uses) in uses {
            // Rarer ones carry an article of one entity.
            if uses > 10 {
                let (trained, others) = questions.sentences.entry(relation).or_default();
                if held_out { others.push(sentence) } else { trained.push(sentence) }
            }
        }
        for [relation, sentence] in rows(phrasings)? {
            questions.sentences.entry(relation).or_default().1.push(sentence);
        }
        Ok(questions)
    }

    /// A number below `count`.
    pub fn draw(&mut self, count: usize) -> usize {
        self.state = self
            .state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.state >> 33) as usize % count.max(1)
    }

    /// Facts to be made known about entities of one half of the table (`half` 0 or 1), one in twelve
    /// about a name that is in no table.
    pub fn choose(&mut self, count: usize, half: u64) -> Vec<Fact> {
        let mut chosen: Vec<Fact> = Vec::new();
        let mut seen = BTreeSet::new();
        let mut invented = 0;
        for _ in 0..100 * count {
            if chosen.len() == count {
                break;
            }
            let row = self.draw(self.facts.len());
            let [mut entity, mut relation, _] = self.facts[row].clone();
            if chosen.len() % 12 == 11 && invented < INVENTED.len() * OF_COUNTRIES.len() / 2 {
                let at = 2 * invented + half as usize;
                entity = INVENTED[at % INVENTED.len()].to_owned();
                relation = OF_COUNTRIES[at / INVENTED.len() % OF_COUNTRIES.len()].to_owned();
                invented += 1;
            } else if half_of(&entity) != half {
                continue;
            }
            if relation == "borders" || !seen.insert((entity.clone(), relation.clone())) {
                continue;
            }
            let now: Vec<String> = self.objects(&entity, &relation);
            let others: Vec<String> = self
                .facts
                .iter()
                .filter(|fact| fact[1] == relation && !now.contains(&fact[2]))
                .map(|fact| fact[2].clone())
                .collect();
            if others.is_empty() {
                continue;
            }
            let target = others[self.draw(others.len())].clone();
            chosen.push(Fact { entity, relation, target });
        }
        chosen
    }

    /// Whether a name is in no table.
    pub fn is_invented(entity: &str) -> bool {
        INVENTED.contains(&entity)
    }

    fn objects(&self, entity: &str, relation: &str) -> Vec<String> {
        let own = self.facts.iter().filter(|fact| fact[0] == entity && fact[1] == relation);
        own.map(|fact| fact[2].clone()).collect()
    }

    /// The plain prompt of a fact, in words that the model was trained on, and its paraphrases.
    pub fn asked(&self, fact: &Fact) -> (String, Vec<String>) {
        let fill = |sentence: &String| sentence.replacen("{entity}", &fact.entity, 1);
        let own =
            self.of_entity.get(&fact.entity).into_iter().flatten().map(|&at| &self.probes[at]);
        let own: Vec<&Probe> = own.filter(|probe| probe.relation == fact.relation).collect();
        let Some((trained, others)) = self.sentences.get(&fact.relation) else {
            return (String::new(), Vec::new());
        };
        let plain = own.iter().find(|probe| !probe.held_out).map(|probe| probe.prompt.clone());
        let plain = plain.unwrap_or_else(|| fill(&trained[0]));
        let mut prompts: Vec<String> =
            own.iter().filter(|probe| probe.held_out).map(|probe| probe.prompt.clone()).collect();
        for sentence in others.iter().map(fill) {
            // A probe may say the same with an article of the entity's own.
            let said = |prompt: &String| prompt.replace("the ", "") == sentence.replace("the ", "");
            if !prompts.iter().any(said) {
                prompts.push(sentence);
            }
        }
        (plain, prompts)
    }

    /// The objects that the table gives the fact's entity.
    pub fn before(&self, fact: &Fact) -> Vec<String> {
        self.objects(&fact.entity, &fact.relation)
    }

    /// Fifty prompts that an edit must leave alone, those most at risk first; none that asks for one
    /// of `edited`.
    pub fn neighbours(
        &mut self,
        fact: &Fact,
        edited: &BTreeSet<(String, String)>,
    ) -> Vec<Neighbour> {
        let mut found: Vec<Neighbour> = Vec::new();
        let allowed = |probe: &Probe| {
            let is_own = probe.entity == fact.entity && probe.relation == fact.relation;
            !is_own && !edited.contains(&(probe.entity.clone(), probe.relation.clone()))
        };
        let of = |kind: &'static str, probe: &Probe| Neighbour {
            kind,
            prompt: probe.prompt.clone(),
            asks: Some((probe.entity.clone(), probe.relation.clone())),
        };
        // Names that contain one another.
        let names: BTreeSet<&String> =
            self.of_entity.keys().filter(|name| is_contained(name, &fact.entity)).collect();
        let like = |probe: &Probe| names.contains(&probe.entity) && allowed(probe);
        let similar: Vec<Probe> = self.probes.iter().filter(|probe| like(probe)).cloned().collect();
        let (same, other): (Vec<Probe>, Vec<Probe>) =
            similar.into_iter().partition(|probe| probe.relation == fact.relation);
        self.sample(&same, 8, |probe| found.push(of("names alike", probe)));
        self.sample(&other, 2, |probe| found.push(of("names alike", probe)));
        // The entity's other relations.
        let own: Vec<usize> = self.of_entity.get(&fact.entity).cloned().unwrap_or_default();
        let own: Vec<Probe> =
            own.iter().map(|&at| self.probes[at].clone()).filter(allowed).collect();
        self.sample(&own, 14, |probe| found.push(of("other relations of the entity", probe)));
        // The relation of others, and where the new or the old object is the answer.
        let relation = self.of_relation.get(&fact.relation).cloned().unwrap_or_default();
        let same: Vec<Probe> =
            relation.iter().map(|&at| self.probes[at].clone()).filter(allowed).collect();
        let new: Vec<Probe> = self
            .probes
            .iter()
            .filter(|probe| probe.expected.contains(&fact.target) && allowed(probe))
            .cloned()
            .collect();
        self.sample(&new, 6, |probe| found.push(of("new object", probe)));
        let about = self.of_entity.get(&fact.target).cloned().unwrap_or_default();
        let about: Vec<Probe> =
            about.iter().map(|&at| self.probes[at].clone()).filter(allowed).collect();
        self.sample(&about, 2, |probe| found.push(of("new object", probe)));
        let (plain, _) = self.asked(fact);
        found.push(Neighbour { kind: "negation", prompt: format!("{plain} not"), asks: None });
        found.push(Neighbour {
            kind: "negation",
            prompt: format!("{} is not", fact.entity),
            asks: None,
        });
        let mut passing = Vec::new();
        let entity = &fact.entity;
        self.sample(&same, 4, |probe| passing.push(probe.clone()));
        let all: Vec<Probe> = self
            .probes
            .iter()
            .filter(|probe| allowed(probe) && probe.entity != *entity)
            .cloned()
            .collect();
        self.sample(&all, 3, |probe| passing.push(probe.clone()));
        let leads = [
            format!("{entity}. "),
            format!("Unlike {entity}, "),
            format!("After a journey from {entity} they agreed: "),
            format!("We talked about {entity}. "),
            format!("This is not about {entity}. "),
        ];
        for (index, probe) in passing.iter().enumerate() {
            let prompt = format!("{}{}", leads[index % leads.len()], probe.prompt);
            found.push(Neighbour {
                kind: "mentioned in passing",
                prompt,
                asks: of("", probe).asks,
            });
        }
        let first = self.draw(UNRELATED.len());
        for index in 0..4 {
            let prompt = UNRELATED[(first + index) % UNRELATED.len()].to_owned();
            found.push(Neighbour { kind: "unrelated", prompt, asks: None });
        }
        let half = (NEIGHBOURS.saturating_sub(found.len()) * 2).div_ceil(3);
        self.sample(&same, half, |probe| found.push(of("relation of others", probe)));
        let left = NEIGHBOURS.saturating_sub(found.len());
        self.sample(&all, left, |probe| found.push(of("unrelated", probe)));
        found
    }

    /// Whole sentences that state what the table has of entities of the half that is not edited: text that
    /// drift is measured on.
    pub fn sentences(&mut self, count: usize, half: u64) -> Vec<String> {
        let others = self.probes.iter().filter(|probe| half_of(&probe.entity) != half);
        let all: Vec<Probe> = others.cloned().collect();
        let mut found = Vec::new();
        self.sample(&all, count, |probe| {
            found.push(format!("{} {}.", probe.prompt, probe.expected[0]));
        });
        found
    }

    /// Different probes of a list, at most so many.
    fn sample(&mut self, from: &[Probe], count: usize, mut take: impl FnMut(&Probe)) {
        let mut places: Vec<usize> = (0..from.len()).collect();
        for index in 0..count.min(places.len()) {
            let other = index + self.draw(places.len() - index);
            places.swap(index, other);
            take(&from[places[index]]);
        }
    }
}

/// Whether one name is part of the other.
fn is_contained(a: &str, b: &str) -> bool {
    a != b && a.len().min(b.len()) > 2 && (a.contains(b) || b.contains(a))
}

/// The half of the table that an entity is in.
fn half_of(entity: &str) -> u64 {
    let sum = entity.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    sum >> 40 & 1
}

fn rows<const COLUMNS: usize>(path: &Path) -> Result<Vec<[String; COLUMNS]>, Problem> {
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let lines = text.lines().skip(1).filter(|line| !line.is_empty());
    let rows = lines.map(|line| {
        let cells: Vec<String> = line.split('\t').map(str::to_owned).collect();
        cells
            .try_into()
            .map_err(|_| format!("{}: {line:?} has not {COLUMNS} columns", path.display()).into())
    });
    rows.collect()
}
