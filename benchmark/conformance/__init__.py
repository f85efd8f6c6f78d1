"""The contracts of upstreams, tasks and corpora as lists of checks: what `superb check` runs.

Third parties run them in their own tests::

    raise_for_failures(check_upstream(MyEncoder()))

The checks go from basic to subtle. When a basic one fails, those that build on it are not run.
"""

from benchmark.conformance.corpus import check_corpus
from benchmark.conformance.downstream import check_downstream
from benchmark.conformance.report import Check, raise_for_failures
from benchmark.conformance.upstream import check_upstream

__all__ = ["Check", "check_corpus", "check_downstream", "check_upstream", "raise_for_failures"]
