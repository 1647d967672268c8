"""Clipping: by what each example's vector is multiplied, so that no record moves a sum further."""
