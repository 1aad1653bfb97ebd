//! A small text that no edit is made from: drift is measured on it.

/// Plain sentences about everyday things.
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
