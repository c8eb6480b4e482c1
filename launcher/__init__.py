"""What ./plumb is made of, with Python's standard library alone.

home.py       where set-up lives, and how a part of it is built: whole or not at all
nextflow.py   Java and Nextflow: the machine's own when good enough, fetched otherwise
parameters.py  the words of a command line, and what Nextflow makes of profiles and configuration
launch.py     children of ./plumb: started, waited for, stopped with it
models.py     which environments a run needs
environments.py  one Python environment per container, from the same pinned requirements
doctor.py     what is there, what is missing, and the command that mends it
verbs.py      the commands of ./plumb
"""
