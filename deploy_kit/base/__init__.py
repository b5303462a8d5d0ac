"""Foundations that import no other package: errors, catalogues, optional imports, progress events.

errors      every error that is raised on purpose, with its hint and exit code
catalogue   folders as registries: a file is an entry
lazy        imports of optional packages, and the line that installs a missing one
progress    progress events and the callback that receives them
bundled     recipes, image sets and models that ship with the package
versions    comparison of version numbers
plain_text  text from files, made safe to show; text_files reads YAML and JSON within bounds
signals     how a process ends by a signal; standard_streams: what it does where a stream is closed, full or gone
"""
