CONTACT_SHEET = "contact_sheet.png"


def write_contact_sheet(directory, manifest, path):
    pass
