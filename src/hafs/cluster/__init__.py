"""Work on several machines: a stage's batches given to workers of a Ray cluster (the extra `cluster`).

A stage hands over a `Job` and its tasks; what a task leaves is in the workspace's database, which every worker opens by
itself. This room knows Ray and no stage.
"""

from hafs.cluster.crew import Crew, open_crew
from hafs.cluster.shared import Shared, worker_id
from hafs.cluster.worker import Job

__all__ = ["Crew", "Job", "Shared", "open_crew", "worker_id"]
