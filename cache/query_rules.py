"""What a person's SQL may name: one SELECT over the result tables, and nothing else.

A statement is judged by its parse tree, made on a database that holds nothing. What no list names is refused: tables
(sessions' secrets stand beside the results), functions (of settings, files and the environment; and those that make
texts and lists of any length, which DuckDB counts against no memory limit and cannot interrupt), types, clauses.
"""

import json
from collections.abc import Mapping
from typing import Any, NoReturn

import duckdb
from duckdb import DuckDBPyConnection

from cache.answers import ANSWER_TABLES
from cache.connection import connect
from cache.prompt_store import PROMPT_TABLES
from cache.results import TABLES
from cache.saes import SAE_TABLES

__all__ = ["READABLE", "QueryRefused", "check_query", "first_line"]

READABLE = ("runs", "captures", *TABLES, *SAE_TABLES, *PROMPT_TABLES, *ANSWER_TABLES)
_CHARACTERS = 10_000
_PARSER_MEMORY = 64 << 20


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_NODES = _words(
    "SELECT_NODE SET_OPERATION_NODE RECURSIVE_CTE_NODE BASE_TABLE SUBQUERY JOIN TABLE_FUNCTION EMPTY EXPRESSION_LIST PIVOT "
    "LIMIT_MODIFIER LIMIT_PERCENT_MODIFIER ORDER_MODIFIER DISTINCT_MODIFIER ORDER_DEFAULT ASCENDING DESCENDING"
)
_EXPRESSIONS = _words(
    "BETWEEN CASE CAST COLLATE COLUMN_REF COMPARISON CONJUNCTION CONSTANT FUNCTION LAMBDA OPERATOR POSITIONAL_REFERENCE STAR "
    "SUBQUERY TYPE WINDOW"
)
_TYPES = _words(
    "boolean bool tinyint smallint integer int bigint hugeint utinyint usmallint uinteger ubigint int1 int2 int4 int8 float4 "
    "float8 float real double decimal numeric varchar text string date time timestamp timestamptz interval json"
)
_TABLE_FUNCTIONS = _words("range generate_series unnest json_each")
_WINDOWED = _words(
    """
    any_value approx_count_distinct approx_quantile arg_max arg_min argmax argmin avg bit_and bit_or bit_xor bool_and bool_or
    corr count count_if count_star countif covar_pop covar_samp cume_dist dense_rank entropy favg fill first first_value fsum
    geomean geometric_mean kahan_sum kurtosis kurtosis_pop lag last last_value lead mad max max_by mean median min min_by mode
    nth_value ntile percent_rank product quantile quantile_cont quantile_disc rank rank_dense regr_avgx regr_avgy regr_count
    regr_intercept regr_r2 regr_slope regr_sxx regr_sxy regr_syy row_number sem skewness stddev stddev_pop stddev_samp sum
    sumkahan var_pop var_samp variance wavg weighted_avg
    """
)
_FUNCTIONS = _WINDOWED | _words(
    """
    + - * / // % ** ^ & | << >> ~ @ ! || ~~ !~~ ~~* !~~* ~~~ ^@ ->> like_escape not_like_escape ilike_escape not_ilike_escape
    abs acos add asin atan atan2 cbrt ceil ceiling cos cosh degrees divide even exp fdiv floor fmod gcd greatest hash isfinite
    isinf isnan lcm least lgamma ln log log10 log2 mod multiply pi pow power radians random round round_even sign sin sinh sqrt
    subtract tan tanh trunc xor
    if nullif typeof
    array_agg group_concat histogram list listagg string_agg
    array_contains array_extract array_length array_slice list_aggregate list_avg list_contains list_count list_distinct
    list_element list_extract list_has list_max list_median list_min list_position list_slice list_sort list_sum list_value
    map_extract map_keys map_values row struct_extract struct_pack unnest
    ascii char_length character_length chr concat concat_ws contains ends_with instr lcase left length len lower ltrim md5 ord
    position prefix regexp_extract regexp_full_match regexp_matches regexp_replace replace reverse right rtrim split_part
    starts_with string_split strip_accents strlen strpos str_split substr substring suffix translate trim ucase unicode upper
    age date_diff date_part date_sub date_trunc datediff datepart datetrunc day dayname
    dayofweek dayofyear epoch epoch_ms get_current_timestamp hour last_day make_date minute month monthname now quarter second
    strftime strptime time_bucket timezone to_days to_hours to_milliseconds to_minutes to_months to_seconds to_timestamp to_weeks
    to_years today week year
    json_array_length json_contains json_exists json_extract json_extract_path json_extract_path_text json_extract_string
    json_keys json_type json_valid json_value
    """
)


class QueryRefused(ValueError):
    """What was asked is not one SELECT over the result tables, is wrong, or went beyond a limit; one sentence says which."""


def check_query(sql: str) -> Any:
    """The parsed statement if it may be run. Raises QueryRefused. Nothing of the store is read."""
    if len(sql) > _CHARACTERS:
        _refuse(f"a statement has at most {_CHARACTERS:,} characters, this one has {len(sql):,}")
    if any(sign == "\0" or "\ud800" <= sign <= "\udfff" for sign in sql):
        _refuse("its text holds a sign that is no text")
    parser = connect(None, memory=_PARSER_MEMORY)
    try:
        statements = parser.extract_statements(sql)
        if len(statements) != 1:
            _refuse(f"this text holds {len(statements) or 'no'} statement{'s' * (len(statements) > 1)}")
        kind = statements[0].type.name
        if kind == "MULTI":
            _refuse("PIVOT needs its values listed, as in PIVOT runs ON model IN ('a', 'b') USING count(*)")
        if kind != "SELECT":
            _refuse(f"{kind} is another kind of statement")
        [(text,)] = parser.execute(
            "SELECT json_serialize_sql(?, skip_null := true, skip_empty := true)", [statements[0].query]
        ).fetchall()
        tree = json.loads(text)
        if tree["error"]:
            _refuse(str(tree["error_message"]))
        _walk(tree["statements"], frozenset())
        for name in _bound(parser, statements[0].query):
            if _lower(name) not in READABLE:
                _refuse_table(name)
    except RecursionError:
        _refuse("its expressions are nested too deeply")
    except duckdb.Error as error:
        raise QueryRefused(first_line(error)) from error
    finally:
        parser.close()
    return statements[0]


def _bound(parser: DuckDBPyConnection, sql: str) -> set[str]:
    """The tables DuckDB's own binder would look for: a second opinion. It has none where columns decide what is meant."""
    try:
        return set(parser.get_table_names(sql))
    except duckdb.Error:
        return set()


def _walk(part: Any, known: frozenset[str]) -> None:
    """Refuse what no list names, anywhere in the tree; ``known`` are the names WITH clauses give in this place."""
    if isinstance(part, list):
        for child in part:
            _walk(child, known)
        return
    if not isinstance(part, dict):
        return
    rest = {name: child for name, child in part.items() if name != "cte_map"}
    for entry in part.get("cte_map", {}).get("map", []):
        # A name counts from the clause behind its own on; in its own body only where it recurs (below).
        _walk(entry["value"], known)
        known |= {_lower(entry["key"])}
    if isinstance(kind := part.get("type"), str):
        _check(kind, part, known)
        if kind == "TABLE_FUNCTION":
            rest["function"] = part["function"].get("arguments", [])
        if kind == "RECURSIVE_CTE_NODE":
            _walk(rest.pop("left"), known)
            known |= {_lower(part["cte_name"])}
    for child in rest.values():
        _walk(child, known)


def _check(kind: str, part: Mapping[str, Any], known: frozenset[str]) -> None:
    family = part.get("class")
    name = _lower(str(part.get("function_name", part.get("type_name", ""))))
    path = part.get("qualified_name", {}).get("path", [])
    if "sample" in part:
        _refuse("SAMPLE is not read here, ORDER BY random() LIMIT n is")
    if family not in _EXPRESSIONS if family is not None else kind not in _NODES:
        _refuse(f"{_spoken(kind)} is not read here")
    if kind == "BASE_TABLE" and (len(path) != 1 or _lower(path[0]) not in known.union(READABLE)):
        _refuse_table(".".join(path))
    if kind == "TABLE_FUNCTION":
        called = part["function"]
        name, path = _lower(called["function_name"]), called["qualified_name"]["path"]
        if name not in _TABLE_FUNCTIONS or len(path) != 1:
            _refuse(
                f"the table function {'.'.join(path)[:64]} is not read here, {', '.join(sorted(_TABLE_FUNCTIONS))} are"
            )
    elif family == "WINDOW" and name and name not in _WINDOWED:
        _refuse(f"the function {name[:64]} is not read here over a window")
    elif family == "FUNCTION" and (name not in _FUNCTIONS or len(path) != 1):
        _refuse(f"the function {'.'.join(path)[:64]} is not read here")
    elif family == "TYPE" and (name not in _TYPES or len(path) != 1):
        _refuse(f"the type {name[:64]} is not read here")


def _lower(name: str) -> str:
    """As DuckDB compares names: without regard to the case of ASCII letters, and of no others."""
    return name.encode().lower().decode()


def _spoken(kind: str) -> str:
    return {"SHOW_REF": "SHOW, DESCRIBE or SUMMARIZE", "VALUE_PARAMETER": "a parameter"}.get(
        kind, kind.removesuffix("_QUERY_NODE").removesuffix("_NODE")
    )


def _refuse(why: str) -> NoReturn:
    raise QueryRefused(f"Only one SELECT can be run: {why}.")


def _refuse_table(name: str) -> NoReturn:
    raise QueryRefused(f"The table {name[:64]!r} is not one of {', '.join(READABLE)}.")


def first_line(error: BaseException) -> str:
    """What DuckDB says first of an error."""
    return str(error).strip().split("\n")[0][:300]
