"""Paths in the working directory of a submitted job. Imports nothing but the standard library."""

#: Below the job's working directory, and not where the files that the spec names lie: a path that is relative to that
#: directory must stay so, since it goes into the journal and the next job has another directory.
FOLDER = "lines-job"


SPEC, ARGUMENTS = f"{FOLDER}/spec.yaml", f"{FOLDER}/job.json"
