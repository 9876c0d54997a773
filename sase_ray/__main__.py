"""`python -m sase_ray`, as `ray job submit` calls it."""

from sase_ray.cli.app import main

if __name__ == "__main__":
    main()
