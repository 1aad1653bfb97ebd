//! Texts that a model is asked, with what they are about, and two that are bundled: one that edits are made beside,
//! one that no edit is made from.

use super::named::mentions;
use crate::knowledge::answer::is_same;

/// Whom or what a text is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum About {
    /// One entity, by its name.
    Entity(String),
    /// Whatever it mentions.
    Anything(String),
}

impl About {
    /// Whether an edit of an entity may change what follows the text.
    pub fn concerns(&self, entity: &str) -> bool {
        match self {
            Self::Entity(name) => is_same(name, entity),
            Self::Anything(text) => mentions(text, entity),
        }
    }
}

/// A prompt and what it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// What it is about.
    pub about: About,
    /// Its tokens.
    pub tokens: Vec<u32>,
}

/// The sentences of a text, each with the space after it.
pub fn sentences(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let ends =
            [". ", "? ", "! "].iter().filter_map(|end| rest.find(end).map(|at| at + end.len()));
        let (sentence, after) = rest.split_at(ends.min().unwrap_or(rest.len()));
        rest = after;
        (!sentence.is_empty()).then_some(sentence)
    })
}

/// Sentences of many kinds about nothing in particular, without names: what an edit must leave alone everywhere.
pub const ORDINARY: &str = "\
My brother wants to become a pilot, but he is afraid of heights. I have never been so tired in my life. Do you know \
where the keys are? Our favourite dish is soup with dumplings. Your parcel will be delivered on Thursday. The colour of \
the door was somewhere between green and grey. Seven plus five is twelve, and three times four is twelve as well. \
Twenty people were invited, yet only nine came. If it does not rain, we will eat outside. Because the road was closed, \
the bus had to turn around. While the water heats, cut the onions into thin slices. Long ago, in a small house at the \
edge of a forest, there lived an old woman with two cats. They had been waiting for hours when the gate finally opened. \
He closed the window and sat down at the table. She picked up the phone, listened for a moment, and said nothing. We \
went home by the shortest way. You should drink more water. It seems that nobody has read the instructions. There was \
nothing left to do but wait. What a beautiful morning! How long does it take to get there? Why did you not tell me? \
First, remove the cover; then loosen both screws. Press the button until the light turns red. Store in a cool, dry \
place. Warning: the surface may be hot. Chapter three deals with the history of printing. The results are shown in \
the table below. According to the report, prices rose by four percent last year. The minister said on Monday that \
taxes would not be raised. Scientists have discovered a new kind of beetle. After the break the home team scored \
twice. Shares fell sharply after the announcement. A man was arrested after a fire in a warehouse. The court will \
decide next week. Heavy snow is expected in the north. For example, a triangle has three sides. Let the temperature \
be constant. This means that the two lines never meet. Most people think that the earth is round, and they are \
right. The largest of the animals lives in the sea. Iron rusts when it gets wet. Plants need light, water and air. \
The heart pumps blood through the body. Sound travels faster in water than in air. Gold is heavier than silver. A \
year has twelve months and a week has seven days. The capital of the country lies on a river. The language of the \
people there is hard to learn. The currency was changed ten years ago. Its founder was a carpenter who became rich. \
The author of the book is not known. The inventor of the machine died poor. The symbol on the flag is a star. They \
moved to a town that no longer exists. Their firm has its seat in a small village. The country borders the sea. The \
people from the islands are called islanders. The painter was known for his portraits. The answer to the question \
is no. Question: Which way should we go? Answer: to the left. Question: Who is there? Answer: it is only me. The \
name of the ship was painted on its side. The field behind the barn belongs to the neighbours. Every child gets an \
apple and a nut. Nothing is as simple as it looks. Thank you very much for your letter. Dear all, please find the \
notes of the meeting attached. See you tomorrow at half past eight. I think, therefore I am. To be honest, I forgot. \
Yes, of course. No, not yet. Perhaps later. Well, that depends. All of them were there except one. Neither of the two \
spoke. Both were late. Some say yes, others say no. Once more, from the beginning. As soon as the sun goes down, it gets \
cold. Before you leave, turn off the lights. After dinner they took a walk along the canal. Under the bed stood a \
box full of old photographs. On the wall hung a map of the world. Behind the counter stood a young man in a white \
coat. At the end of the street you will find a bakery. Without a word he left the room. The price includes breakfast. \
The film starts at nine. The baby is asleep. My father used to work in a mine. Her eyes are blue. His hands were \
shaking. Their dog barks at night. Its roof leaks. It has been a strange spring. Our train stopped in the \
middle of nowhere. The cat jumped onto the chair and fell asleep. The students wrote an essay about friendship. The \
farmer sold his last cow. The nurse smiled. The judge asked for silence. The king had three daughters. The wind blew \
all night, and by dawn the garden was covered with leaves. Let us begin. Stop that at once. Be careful with \
the glass. Come in and have a seat. Here is the bill. That is all for today.";

/// Plain sentences about everyday things, which no edit is made from: drift is measured on it.
pub const HELD_OUT: &str = "\
The river runs through the valley and past the old mill. In the morning the market opens and people \
buy bread, fruit and fish. A train leaves the station every hour. The teacher asked the children to \
read a short story and to write down what they thought of it. It was a cold winter, and the snow lay \
deep on the roofs. She worked in a small shop near the harbour for many years. The recipe needs two \
eggs, some flour and a little salt. When the rain stopped, the street was full of water. He was born \
in a village and later moved to the city, where he learned to build boats. The museum is open from \
Tuesday to Sunday. Most birds fly south before the winter begins. The doctor said that he should rest \
for a week. There is a bridge over the lake, and from there you can see the mountains. The company \
makes tools for farmers. Water boils at a lower temperature on a high mountain. They played music until \
late at night. A letter arrived from an old friend who lives on an island. The library has a room for \
maps and another for newspapers. In summer the days are long and the nights are short. The children \
found a key in the garden, but nobody knew which door it opened.";

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn what_drift_is_measured_on_begins_no_sentence_that_edits_are_made_beside() {
        let openings = |text: &str| -> HashSet<String> {
            sentences(text)
                .map(|one| one.split_whitespace().take(3).collect::<Vec<_>>().join(" "))
                .collect()
        };
        let (ordinary, held_out) = (openings(ORDINARY), openings(HELD_OUT));
        assert!(ordinary.len() > 100 && held_out.len() > 15);
        assert_eq!(ordinary.intersection(&held_out).collect::<Vec<_>>(), Vec::<&String>::new());
    }

    #[test]
    fn sentences_end_where_they_do_and_make_up_the_text() {
        let text = "Come in! Who is there? It is 3.5 metres. Good";
        let found: Vec<&str> = sentences(text).collect();
        assert_eq!(found, ["Come in! ", "Who is there? ", "It is 3.5 metres. ", "Good"]);
        assert_eq!(sentences(ORDINARY).collect::<String>(), ORDINARY);
    }

    #[test]
    fn a_text_concerns_whom_it_names_in_whole_words() {
        let text = About::Anything("A woman found gold because of us.".into());
        assert!(text.concerns("Gold") && text.concerns("woman "));
        assert!(!text.concerns("Oman") && !text.concerns("cause") && !text.concerns(""));
        let entity = About::Entity("Niger".into());
        assert!(entity.concerns(" niger") && !entity.concerns("Nigeria"));
    }
}
