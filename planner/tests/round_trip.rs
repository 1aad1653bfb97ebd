//! Printing and parsing are inverse to each other, for every kind of statement there is; and no
//! text whatever makes the parser panic.

use larql_planner::syntax::ast::*;
use larql_planner::syntax::keyword::Keyword;
use larql_planner::syntax::{Span, Spanned, SpannedStatement, parse_script, parse_statement};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

fn at<T>(value: T) -> Spanned<T> {
    Spanned::new(value, Span::default())
}

fn flag(set: bool) -> Flag {
    set.then(|| at(()))
}

fn whole(statement: Statement) -> SpannedStatement {
    SpannedStatement { statement, span: Span::default() }
}

/// Words with a meaning of their own inside expressions.
const NOT_COLUMNS: [&str; 5] = ["not", "null", "true", "false", "distinct"];

/// Any word, keywords among them.
fn word() -> BoxedStrategy<String> {
    let keywords = select(Keyword::ALL).prop_map(|keyword| keyword.text().to_lowercase());
    prop_oneof![3 => "[a-zA-Z_][a-zA-Z0-9_]{0,8}", 1 => keywords]
        .prop_filter("means something in expressions", |word| {
            !NOT_COLUMNS.contains(&word.to_lowercase().as_str())
        })
        .boxed()
}

fn name() -> BoxedStrategy<Name> {
    word().prop_map(at).boxed()
}

fn string() -> BoxedStrategy<String> {
    prop_oneof![
        any::<String>(),
        "[a-zA-Z \"'\\\\\n\t]{0,12}",
        Just("\0\u{202e}\u{200b}é日本\u{e0041}".to_owned()),
    ]
    .boxed()
}

fn literal() -> BoxedStrategy<Literal> {
    string().prop_map(at).boxed()
}

fn parameter() -> BoxedStrategy<Parameter> {
    prop_oneof![(1u32..).prop_map(Parameter::Position), word().prop_map(Parameter::Column),].boxed()
}

fn text() -> BoxedStrategy<Text> {
    prop_oneof![
        3 => string().prop_map(TextOperand::Literal),
        1 => parameter().prop_map(TextOperand::Parameter),
    ]
    .prop_map(at)
    .boxed()
}

fn count() -> BoxedStrategy<u64> {
    prop_oneof![0u64..100, Just(i64::MAX as u64)].boxed()
}

fn positive() -> BoxedStrategy<u64> {
    prop_oneof![1u64..100, Just(i64::MAX as u64)].boxed()
}

fn real() -> BoxedStrategy<f64> {
    use proptest::num::f64::{NEGATIVE, NORMAL, POSITIVE, SUBNORMAL, ZERO};
    (NORMAL | SUBNORMAL | ZERO | POSITIVE | NEGATIVE).boxed()
}

fn layer() -> BoxedStrategy<LayerNumber> {
    any::<u32>().prop_map(at).boxed()
}

fn range() -> BoxedStrategy<Spanned<Range>> {
    (any::<u32>(), any::<u32>())
        .prop_map(|(a, b)| at(Range { first: a.min(b), last: a.max(b) }))
        .boxed()
}

fn leaf_expression() -> BoxedStrategy<Expression> {
    prop_oneof![
        Just(ExpressionKind::Null),
        any::<bool>().prop_map(ExpressionKind::Boolean),
        any::<i64>().prop_map(ExpressionKind::Integer),
        real().prop_map(ExpressionKind::Real),
        string().prop_map(ExpressionKind::Text),
        parameter().prop_map(ExpressionKind::Parameter),
        (option::of(word()), word())
            .prop_map(|(qualifier, name)| ExpressionKind::Column { qualifier, name }),
    ]
    .prop_map(at)
    .boxed()
}

fn expression() -> BoxedStrategy<Expression> {
    let comparison = select(vec![
        ComparisonOperator::Equal,
        ComparisonOperator::NotEqual,
        ComparisonOperator::Less,
        ComparisonOperator::LessOrEqual,
        ComparisonOperator::Greater,
        ComparisonOperator::GreaterOrEqual,
    ]);
    leaf_expression()
        .prop_recursive(5, 24, 4, move |inner| {
            let boxed = inner.clone().prop_map(Box::new).boxed();
            let arithmetic = |operators: Vec<ArithmeticOperator>| {
                (boxed.clone(), vec((select(operators), inner.clone()), 1..4))
                    .prop_map(|(first, rest)| ExpressionKind::Arithmetic { first, rest })
            };
            prop_oneof![
                boxed.clone().prop_map(ExpressionKind::Not),
                boxed.clone().prop_map(ExpressionKind::Negate),
                vec(inner.clone(), 2..4).prop_map(ExpressionKind::And),
                vec(inner.clone(), 2..4).prop_map(ExpressionKind::Or),
                (comparison.clone(), boxed.clone(), boxed.clone()).prop_map(
                    |(operator, left, right)| ExpressionKind::Comparison { operator, left, right }
                ),
                (boxed.clone(), boxed.clone(), any::<bool>()).prop_map(
                    |(value, pattern, negated)| ExpressionKind::Like { value, pattern, negated }
                ),
                (boxed.clone(), vec(inner.clone(), 1..4), any::<bool>()).prop_map(
                    |(value, list, negated)| ExpressionKind::InList { value, list, negated }
                ),
                (boxed.clone(), boxed.clone(), boxed.clone(), any::<bool>()).prop_map(
                    |(value, low, high, negated)| ExpressionKind::Between {
                        value,
                        low,
                        high,
                        negated
                    }
                ),
                (boxed.clone(), any::<bool>())
                    .prop_map(|(value, negated)| ExpressionKind::IsNull { value, negated }),
                arithmetic(vec![ArithmeticOperator::Add, ArithmeticOperator::Subtract]),
                arithmetic(vec![ArithmeticOperator::Multiply, ArithmeticOperator::Divide]),
                (word(), any::<bool>(), option::of(vec(inner.clone(), 0..3))).prop_map(
                    |(name, distinct, arguments)| {
                        let empty = arguments.as_ref().is_none_or(Vec::is_empty);
                        ExpressionKind::Function { name, distinct: distinct && !empty, arguments }
                    }
                ),
            ]
            .prop_map(at)
        })
        .boxed()
}

fn select_statement(piped: bool) -> BoxedStrategy<Select> {
    let leaf = plain_select(piped);
    if piped {
        return leaf;
    }
    leaf.prop_recursive(2, 4, 2, |inner| {
        (plain_select(false), inner, option::of(name())).prop_map(|(mut outer, inner, alias)| {
            outer.from = Some(Source { table: Table::Select(at(Box::new(inner))), alias });
            outer
        })
    })
    .boxed()
}

fn plain_select(piped: bool) -> BoxedStrategy<Select> {
    let item = prop_oneof![
        option::of(word()).prop_map(|qualifier| SelectItem::All(at(qualifier))),
        (expression(), option::of(name()))
            .prop_map(|(expression, alias)| SelectItem::Expression { expression, alias }),
    ];
    let source = (option::of(name()), name(), option::of(name()))
        .prop_map(|(schema, name, alias)| Source { table: Table::Named { schema, name }, alias });
    let join = (source.clone(), expression()).prop_map(|(source, on)| Join { source, on });
    let nearest = (text(), layer()).prop_map(|(entity, layer)| at(NearestTo { entity, layer }));
    let key = (expression(), any::<bool>())
        .prop_map(|(expression, descending)| OrderKey { expression, descending });
    let grouping = (vec(expression(), 0..3), option::of(expression()));
    let limits = (option::of(count()), option::of(count()), any::<bool>());
    let from =
        (source, any::<bool>()).prop_map(move |(source, keep)| (keep || !piped).then_some(source));
    (
        (any::<bool>(), vec(item, 1..4), from, vec(join, 0..2), option::of(nearest)),
        (option::of(expression()), grouping, vec(key, 0..3), limits),
    )
        .prop_map(
            |((distinct, items, from, joins, nearest), (filter, grouping, order_by, limits))| {
                let (group_by, having) = grouping;
                let (limit, offset, approximate) = limits;
                Select {
                    distinct,
                    items,
                    joins,
                    nearest,
                    filter,
                    having: having.filter(|_| !group_by.is_empty()),
                    group_by,
                    order_by,
                    offset: offset.filter(|_| limit.is_some()),
                    limit,
                    approximate: flag(approximate),
                    from,
                }
            },
        )
        .boxed()
}

fn display() -> BoxedStrategy<Display> {
    select(vec![Display::Brief, Display::Verbose, Display::Raw]).boxed()
}

fn band() -> BoxedStrategy<Band> {
    select(vec![Band::Syntax, Band::Knowledge, Band::Output]).boxed()
}

fn harm() -> BoxedStrategy<Option<Harm>> {
    option::of(prop_oneof![
        (real(), any::<bool>()).prop_map(|(budget, points)| Harm::Max { budget, points }),
        Just(Harm::WithoutReceipt),
    ])
    .boxed()
}

fn reference() -> BoxedStrategy<Reference> {
    prop_oneof![Just(Reference::Current), literal().prop_map(Reference::Named)].boxed()
}

fn moment() -> BoxedStrategy<Moment> {
    prop_oneof![count().prop_map(Moment::Lsn), literal().prop_map(Moment::Patch)].boxed()
}

/// Statements that read, without AS OF.
fn reading() -> BoxedStrategy<Statement> {
    let describe = (
        text(),
        option::of(prop_oneof![
            layer().prop_map(LayerChoice::At),
            Just(LayerChoice::All),
            band().prop_map(LayerChoice::Band),
        ]),
        (any::<bool>(), option::of(display()), any::<bool>(), option::of(count())),
    )
        .prop_map(|(entity, layers, (relations_only, display, stream, limit))| {
            let describe = Describe { entity, layers, relations_only, display, stream, limit };
            Statement::Describe(Box::new(describe))
        });
    let mode = select(vec![WalkMode::Hybrid, WalkMode::Pure, WalkMode::Dense]).prop_map(at);
    let walk =
        (text(), option::of(positive()), option::of(range()), option::of(mode), any::<bool>())
            .prop_map(|(prompt, top, layers, mode, compare)| {
                let walk = Walk { prompt, top, layers, mode, compare: flag(compare) };
                Statement::Walk(Box::new(walk))
            });
    let infer =
        (text(), option::of(positive()), any::<bool>()).prop_map(|(prompt, top, compare)| {
            Statement::Infer(Box::new(Infer { prompt, top, compare: flag(compare) }))
        });
    let explain = (
        (any::<bool>(), text(), option::of(range()), option::of(option::of(band()))),
        (any::<bool>(), option::of(positive()), any::<bool>(), any::<bool>()),
    )
        .prop_map(
            |((infer, prompt, layers, band), (verbose, top, relations_only, attention))| {
                Statement::ExplainFeatures(Box::new(ExplainFeatures {
                    infer,
                    prompt,
                    layers,
                    band,
                    verbose,
                    top,
                    relations_only,
                    with_attention: flag(attention),
                }))
            },
        );
    let trace = (
        (text(), option::of(text()), any::<bool>(), option::of(range())),
        (option::of(any::<bool>()), option::of(literal()), option::of(text())),
    )
        .prop_map(|((prompt, target, decompose, layers), (all_positions, save, diff))| {
            let trace = Trace { prompt, target, decompose, layers, all_positions, save, diff };
            Statement::Trace(Box::new(trace))
        });
    let generate = (
        (text(), option::of(positive()), option::of(real()), option::of(positive())),
        (option::of(real()), option::of(count()), vec(literal(), 0..3)),
    )
        .prop_map(|((prompt, tokens_max, temperature, top_k), (top_p, seed, stop))| {
            let generate = Generate { prompt, tokens_max, temperature, top_k, top_p, seed, stop };
            Statement::Generate(Box::new(generate))
        });
    let diff = (
        (reference(), reference(), option::of(layer())),
        (option::of(literal()), option::of(count()), option::of(literal())),
    )
        .prop_map(|((left, right, layer), (relation, limit, into_patch))| {
            Statement::Diff(Box::new(Diff { left, right, layer, relation, limit, into_patch }))
        });
    let show = prop_oneof![
        (option::of(layer()), any::<bool>(), option::of(display().prop_map(at)))
            .prop_map(|(layer, examples, display)| Show::Relations { layer, examples, display }),
        option::of(range()).prop_map(Show::Layers),
        (layer(), option::of(expression()), option::of(count()))
            .prop_map(|(layer, filter, limit)| Show::Features { layer, filter, limit }),
        (option::of(layer()), option::of(count()))
            .prop_map(|(layer, limit)| Show::Entities { layer, limit }),
        select(vec![
            Show::Models,
            Show::Mounts,
            Show::Patches,
            Show::CompactStatus,
            Show::Branches,
            Show::Assertions,
            Show::Indexes,
            Show::Sessions,
        ]),
        "s_[a-z]{0,8}".prop_map(|name| Show::Setting(at(name))),
    ]
    .prop_map(Statement::Show);
    prop_oneof![
        6 => select_statement(false).prop_map(|select| Statement::Select(Box::new(select))),
        2 => describe,
        2 => walk,
        1 => infer,
        2 => explain,
        2 => trace,
        2 => generate,
        2 => diff,
        3 => show,
        1 => option::of(literal()).prop_map(Statement::Stats),
        1 => expression().prop_map(Statement::VerifyEdge),
        1 => (text(), option::of(text()), option::of(positive()))
            .prop_map(|(prompt, target, top)| Statement::Blame { prompt, target, top }),
    ]
    .boxed()
}

fn lifecycle() -> BoxedStrategy<Statement> {
    let component = select(vec![
        ExtractComponent::FfnGate,
        ExtractComponent::FfnDown,
        ExtractComponent::FfnUp,
        ExtractComponent::Embeddings,
        ExtractComponent::AttentionOv,
        ExtractComponent::AttentionQk,
    ]);
    let level = select(vec![
        ExtractLevel::Attention,
        ExtractLevel::Inference,
        ExtractLevel::All,
        ExtractLevel::Weights,
    ]);
    let dtype = select(vec![ExtractDtype::F16, ExtractDtype::F32, ExtractDtype::Source]);
    let quant =
        select(vec![ExtractQuant::Q4K, ExtractQuant::Q8_0, ExtractQuant::Fp4, ExtractQuant::Fp8]);
    let extract = (
        (literal(), literal(), option::of(vec(component, 1..4)), option::of(range())),
        (option::of(level), option::of(dtype), option::of(quant), any::<[bool; 5]>()),
    )
        .prop_map(
            |((source, destination, components, layers), (level, dtype, quant, flags))| {
                let [down, drop, without_labels, overwrite, resume] = flags;
                Statement::Extract(Box::new(Extract {
                    source,
                    destination,
                    components,
                    layers,
                    level,
                    dtype,
                    quant: quant.map(at),
                    down_q4k: flag(down),
                    drop_gate_vectors: flag(drop),
                    without_labels,
                    overwrite,
                    resume,
                }))
            },
        );
    let format = select(vec![CompileFormat::Safetensors, CompileFormat::Gguf]);
    let conflict = select(vec![
        CompileConflict::LastWins,
        CompileConflict::HighestConfidence,
        CompileConflict::Fail,
    ]);
    let compile = (
        (reference(), any::<bool>(), literal()),
        (option::of(format), option::of(name()), option::of(name()), option::of(conflict)),
        any::<[bool; 2]>(),
    )
        .prop_map(|((source, into_model, destination), clauses, flags)| {
            let ((format, dtype, level, conflict), [overwrite, verify]) = (clauses, flags);
            Statement::Compile(Box::new(Compile {
                source,
                into_model,
                destination,
                format,
                dtype,
                level,
                conflict,
                overwrite,
                verify,
            }))
        });
    let target = prop_oneof![
        (reference(), option::of(name()))
            .prop_map(|(reference, branch)| Use::Vindex { reference, branch }),
        (literal(), any::<bool>())
            .prop_map(|(path, auto)| Use::Model { path, auto_extract: flag(auto) }),
        literal().prop_map(Use::Remote),
    ];
    prop_oneof![
        extract,
        compile,
        target.prop_map(Statement::Use),
        (literal(), option::of(prop_oneof![name(), literal()]))
            .prop_map(|(path, name)| Statement::Mount { path, name }),
        prop_oneof![name(), literal()].prop_map(Statement::Unmount),
        (option::of(literal()), any::<bool>())
            .prop_map(|(facts, resume)| Statement::Label { facts, resume }),
        literal().prop_map(Statement::VerifyVindex),
        literal().prop_map(Statement::TraceOpen),
        (literal(), name()).prop_map(|(file, format)| Statement::Export { file, format }),
        (name(), literal()).prop_map(|(name, file)| Statement::CreateTable { name, file }),
        name().prop_map(Statement::DropTable),
        Just(Statement::Analyze),
        (
            name(),
            select(vec![IndexTarget::Gates, IndexTarget::Targets, IndexTarget::Labels]),
            option::of(name())
        )
            .prop_map(|(name, target, method)| Statement::CreateIndex {
                name,
                target,
                method
            }),
        name().prop_map(Statement::DropIndex),
        (
            name(),
            prop_oneof![
                string().prop_map(SettingLiteral::Word),
                any::<i64>().prop_map(SettingLiteral::Integer),
                real().prop_map(SettingLiteral::Real),
            ]
        )
            .prop_map(|(name, value)| Statement::Set { name, value: at(value) }),
        name().prop_map(Statement::Reset),
        (name(), vec(expression(), 0..3))
            .prop_map(|(name, arguments)| Statement::Execute { name, arguments }),
        name().prop_map(Statement::Deallocate),
        count().prop_map(Statement::Kill),
    ]
    .boxed()
}

fn mutation() -> BoxedStrategy<Statement> {
    let mode = select(vec![InsertMode::Knn, InsertMode::Compose, InsertMode::Memit]);
    let insert = (1usize..4)
        .prop_flat_map(|width| (vec(name(), width), vec(vec(expression(), width), 1..3)))
        .prop_flat_map(move |(columns, rows)| {
            let options = (
                option::of(range()),
                option::of(real()),
                option::of(real()),
                option::of(mode.clone()),
            );
            (Just((columns, rows)), options, harm())
        })
        .prop_map(|((columns, rows), (layers, confidence, alpha, mode), harm)| {
            let (confidence, alpha) = (confidence.map(at), alpha.map(at));
            let insert = Insert { columns, rows, layers, confidence, alpha, mode, harm };
            Statement::Insert(Box::new(insert))
        });
    let conflict = select(vec![
        MergeConflict::KeepSource,
        MergeConflict::KeepTarget,
        MergeConflict::HighestConfidence,
    ]);
    prop_oneof![
        insert,
        (expression(), harm()).prop_map(|(filter, harm)| Statement::Delete { filter, harm }),
        (vec((name(), expression()), 1..3), expression(), harm()).prop_map(
            |(assignments, filter, harm)| Statement::Update { assignments, filter, harm }
        ),
        (literal(), option::of(literal()), option::of(conflict), harm()).prop_map(
            |(source, target, conflict, harm)| Statement::Merge { source, target, conflict, harm }
        ),
        (any::<bool>(), option::of(positive()), option::of(real()), option::of(real())).prop_map(
            |(until_converged, rounds_max, floor, ceiling)| Statement::Rebalance {
                until_converged,
                rounds_max,
                floor,
                ceiling
            }
        ),
        Just(Statement::CompactMinor),
        (any::<bool>(), option::of(real()))
            .prop_map(|(full, lambda)| Statement::CompactMajor { full, lambda }),
        Just(Statement::Begin),
        literal().prop_map(Statement::BeginPatch),
        Just(Statement::Commit),
        option::of(name()).prop_map(Statement::Rollback),
        name().prop_map(Statement::Savepoint),
        option::of(literal()).prop_map(Statement::SavePatch),
        (literal(), any::<bool>(), harm()).prop_map(|(patch, force, harm)| Statement::ApplyPatch {
            patch,
            force,
            harm
        }),
        literal().prop_map(Statement::RemovePatch),
        (name(), option::of(name()), option::of(moment()))
            .prop_map(|(name, from, at)| Statement::CreateBranch { name, from, at }),
        name().prop_map(Statement::DropBranch),
        (name(), literal(), literal(), option::of(real())).prop_map(
            |(name, prompt, expected, at_least)| Statement::CreateAssertion {
                name,
                prompt,
                expected,
                at_least
            }
        ),
        name().prop_map(Statement::DropAssertion),
        Just(Statement::CheckAssertions),
    ]
    .boxed()
}

/// Statements that hold no other.
fn flat() -> BoxedStrategy<Statement> {
    let as_of = (reading(), moment())
        .prop_map(|(statement, at)| Statement::AsOf { statement: Box::new(whole(statement)), at });
    prop_oneof![4 => reading(), 1 => as_of, 2 => lifecycle(), 2 => mutation()].boxed()
}

fn pipe() -> BoxedStrategy<Statement> {
    let later = prop_oneof![
        flat(),
        select_statement(true).prop_map(|select| Statement::Select(Box::new(select))),
    ];
    (flat(), vec(later, 1..3))
        .prop_map(|(first, later)| {
            Statement::Pipe(std::iter::once(first).chain(later).map(whole).collect())
        })
        .boxed()
}

fn statement() -> BoxedStrategy<Statement> {
    let inner = prop_oneof![4 => flat(), 1 => pipe()];
    prop_oneof![6 => flat(), 1 => pipe()]
        .prop_recursive(3, 4, 1, move |nested| {
            let nested = prop_oneof![inner.clone(), nested].prop_map(whole);
            let format = select(vec![ExplainFormat::Text, ExplainFormat::Json]);
            prop_oneof![
                (any::<bool>(), format, any::<bool>(), nested.clone()).prop_map(
                    |(analyze, format, rules, statement)| {
                        let explain = Explain { analyze, format, rules, statement };
                        Statement::Explain(Box::new(explain))
                    }
                ),
                (name(), nested.clone()).prop_map(|(name, statement)| Statement::Prepare {
                    name,
                    statement: Box::new(statement)
                }),
                (nested, literal(), option::of(name())).prop_map(|(statement, file, format)| {
                    Statement::Copy { statement: Box::new(statement), file, format }
                }),
            ]
        })
        .boxed()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_printed_statement_parses_as_itself(statement in statement()) {
        let text = statement.to_string();
        let parsed = parse_statement(&text);
        match parsed {
            Ok(parsed) => {
                prop_assert_eq!(&parsed.statement, &statement, "{}", &text);
                prop_assert_eq!(parsed.statement.to_string(), text);
            }
            Err(error) => prop_assert!(false, "{error} at {:?}\n{text}", error.span),
        }
    }

    #[test]
    fn any_text_parses_or_is_refused_with_a_place_inside_it(text in any::<String>()) {
        refused_inside(&text)?;
    }

    #[test]
    fn any_soup_of_lexemes_parses_or_is_refused_with_a_place_inside_it(
        words in vec(soup_word(), 0..24),
    ) {
        refused_inside(&words.join(" "))?;
    }

    #[test]
    fn a_damaged_statement_parses_or_is_refused_with_a_place_inside_it(
        statement in statement(),
        cut in any::<prop::sample::Index>(),
        dropped in 0usize..6,
    ) {
        let text = statement.to_string();
        let start = text.floor_char_boundary(cut.index(text.len() + 1));
        let end = text.ceil_char_boundary(start + dropped);
        refused_inside(&format!("{}{}", &text[..start], text.get(end..).unwrap_or("")))?;
    }
}

fn soup_word() -> BoxedStrategy<String> {
    let symbols = select(vec![
        "*",
        ",",
        "(",
        ")",
        ".",
        "=",
        "!=",
        ">",
        "<",
        ">=",
        "<=",
        "|>",
        "+",
        "-",
        "/",
        ";",
        "$1",
        "$a",
        "1",
        "2.5",
        "1e400",
        "'a'",
        "\"b\"",
        "--",
        "99999999999999999999",
        "x",
    ]);
    prop_oneof![
        select(Keyword::ALL).prop_map(|keyword| keyword.text().to_owned()),
        symbols.prop_map(str::to_owned),
    ]
    .boxed()
}

fn refused_inside(text: &str) -> Result<(), TestCaseError> {
    if let Err(error) = parse_script(text) {
        prop_assert!(error.span.start <= error.span.end && error.span.end as usize <= text.len());
        prop_assert!(text.is_char_boundary(error.span.start as usize), "{error}");
        prop_assert!(text.is_char_boundary(error.span.end as usize), "{error}");
        prop_assert!(!error.message.is_empty() && error.code.len() == 5);
    }
    Ok(())
}
