"""Foundations that import no other package: errors, catalogues, optional imports, progress events.

errors      every error that is raised on purpose, with its hint and exit code
catalogue   folders as registries: a file is an entry
lazy        imports of optional packages, and the line that installs a missing one
progress    progress events and the callback that receives them
bundled     recipes, image sets and models that ship with the package
versions    comparison of version numbers
"""
