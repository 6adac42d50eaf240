"""Paths in the working directory of a submitted job. Imports nothing but the standard library."""

#: A folder of its own for the job's files: those of the spec keep their paths relative to the working directory, as
#: these are recorded in the journal and the next job has another directory.
FOLDER = "lines-job"
SPEC, ARGUMENTS = f"{FOLDER}/spec.yaml", f"{FOLDER}/job.json"
