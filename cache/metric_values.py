"""One metric of many runs: a value a layer, whichever long table holds it."""

from collections.abc import Collection

import pandas as pd
from duckdb import DuckDBPyConnection

__all__ = ["layer_metric_names", "layer_values"]

_COLUMNS = ["run_id", "n_tokens", "layer", "value", "n_used", "status"]
_VALUES = """
    WITH asked AS (SELECT unnest(?::VARCHAR[]) AS run_id),
    own AS (
        SELECT run_id, layer, value, n_used, status FROM layer_metrics SEMI JOIN asked USING (run_id)
        WHERE layer IS NOT NULL AND metric = ?
    ),
    of_tokens AS (
        SELECT run_id, layer, avg(value) AS value, count(value) AS n_used,
            if(count(value) > 0, 'ok', any_value(status)) AS status
        FROM token_metrics SEMI JOIN asked USING (run_id)
        WHERE layer IS NOT NULL AND pos > 0 AND metric = ? GROUP BY run_id, layer
    ),
    of_heads AS (
        SELECT run_id, layer + 1 AS layer, avg(value) AS value, count(value) AS n_used,
            if(count(value) > 0, 'ok', any_value(status)) AS status
        FROM head_metrics SEMI JOIN asked USING (run_id) WHERE metric = ? GROUP BY run_id, layer
    )
    SELECT run_id, n_tokens, layer, value, n_used, status FROM (
        FROM own
        UNION ALL (FROM of_tokens ANTI JOIN own USING (run_id))
        UNION ALL (FROM of_heads ANTI JOIN own USING (run_id))
    ) JOIN runs USING (run_id) ORDER BY run_id, layer
"""


def layer_values(connection: DuckDBPyConnection, run_ids: Collection[str], metric: str) -> pd.DataFrame:
    """The metric at each point of each run: ``run_id, n_tokens, layer, value, n_used, status``.

    A metric of tokens is averaged over the positions but 0 where it is defined, unless the run has a mean of its own by
    layer; one of heads over the heads of its block, which stands at the point it writes. Undefined values are NaN with
    their status. Rows are sorted by run and layer.
    """
    found = connection.execute(_VALUES, [list(run_ids), metric, metric, metric])
    return pd.DataFrame(found.fetchall(), columns=_COLUMNS).astype({"value": "float64"})


def layer_metric_names(connection: DuckDBPyConnection, run_id: str) -> list[str]:
    """The metrics of a run that have layers, sorted."""
    found = connection.execute(
        """
        SELECT DISTINCT metric FROM (
            SELECT metric FROM layer_metrics WHERE run_id = $run AND layer IS NOT NULL
            UNION ALL SELECT metric FROM token_metrics WHERE run_id = $run AND layer IS NOT NULL
            UNION ALL SELECT metric FROM head_metrics WHERE run_id = $run
        ) ORDER BY metric
        """,
        {"run": run_id},
    )
    return [row[0] for row in found.fetchall()]
