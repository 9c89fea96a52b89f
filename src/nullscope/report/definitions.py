"""How each number of the page is computed, in a sentence or two."""

from __future__ import annotations

DEFINITIONS: dict[str, str] = {
    "Logit": (
        "The detector's output for one image. Above 0 (strictly) the image is called fake; nothing is tuned on the test set."
    ),
    "Real accuracy (r_acc)": ("The share of reals called real; over a benchmark, the unweighted mean over its subsets."),
    "Fake accuracy (f_acc)": (
        "The share of fakes called fake, per generator; over a benchmark, the unweighted mean over its subsets."
    ),
    "Shared reals": (
        "A subset without reals of its own is compared with those of the subset that dataset.reals names, or else with all "
        "test reals of the subsets that hold only reals. In a mean over subsets they count once per subset, as in the papers."
    ),
    "Seen, unseen": (
        "A subset is seen if the training split has fakes of its generator. f_acc_seen, acc_seen, ap_seen and auroc_seen are "
        "the means over those subsets, and the same with _unseen over the others."
    ),
    "Accuracy (acc)": (
        "The share of a subset's images, reals and fakes together, that are called what they are; then the mean over subsets."
    ),
    "Average precision (ap)": (
        "The area under precision against recall as scikit-learn computes it, fake as positive, per subset; then the mean over "
        "subsets. It needs no threshold, and rises with the share of fakes."
    ),
    "AUROC (auroc)": (
        "The chance that a fake of the subset has a higher logit than one of its reals, ties counting half; then the mean over "
        "subsets. 50 % is guessing."
    ),
    "Mean of reals and fakes (mean_real_fakes)": (
        "What NS-Net and DGS-Net print as mAcc.: the plain mean of one real column and one column per generator. With many "
        "generators the reals hardly count."
    ),
    "Mean of fakes (mean_fakes)": (
        "The plain mean of the generators' columns, without the reals, as in NS-Net's table on UniversalFakeDetect."
    ),
    "Balanced (mean_balanced)": (
        "The mean over subsets of half real plus half fake accuracy: 50 % for a detector that says the same of everything."
    ),
    "Balanced accuracy, pooled (balanced_acc)": (
        "Half real plus half fake accuracy over all test images at once; large subsets weigh more."
    ),
    "Brier score (brier)": (
        "The mean of (probability of fake - truth) squared, the probability being the sigmoid of the logit, with half of the "
        "weight on the reals and half on the fakes, over all test images at once. 0 is best, 0.25 is saying one half of every "
        "image. miscalibration is the part of it that other probabilities for the same 15 bins would take away, without the "
        "bias of few images."
    ),
    "Fakes found at 1 % or 5 % false alarms": (
        "The share of fakes above a threshold that is to call that share of further reals fake: of n reals, k lie above it, "
        "and (k + 1) / (n + 1) is at most the share; 99 reals at least for 1 %, 19 for 5 %. Over all test images at once, or "
        "(tpr_5, tpr_5_unseen) per subset and then the mean. The threshold is set on the test's own reals: an oracle, which "
        "says what calibration could reach."
    ),
    "95 % interval over images (.._low, .._high)": (
        "What other images of the same subsets would give. Of r_acc and f_acc of a subset: Wilson's; of its acc and "
        "balanced_acc: Newcombe's. Of all else, means over subsets included: the error of 1,000 resamples (stratified "
        "bootstrap) on the scale of the logit, and percentiles for tpr_1 and tpr_5. A number of 0 or 1 has Wilson's of the "
        "smaller kind."
    ),
    "Over seeds": (
        "The number is the mean. From three seeds on the interval is of seeds and images in one: the distances of both to an "
        "end, Student's t for the seeds, are added as the sides of a right angle. With fewer seeds it is of the images alone, "
        "and what another training would give is not known."
    ),
    "Other generators (.._generators_low, .._high)": (
        "The interval of a mean over the unseen generators that takes them for a sample: in every resample as many generators "
        "are drawn as there are, with their images; Student's t with one degree of freedom less than generators, on the scale "
        "of the logit. From three generators on."
    ),
    "Differences": (
        "All detectors have the same resamples, so a difference compares the same images; the seeds are in its error. Its "
        "p-value is adjusted for all differences of its column, or of its table where generators are compared (max-T of Romano "
        "and Wolf): where no two differ, one report of twenty has a p below 0.05. Not tested with fewer than three seeds."
    ),
    "Predictive values": (
        "Of the images called fake, the share that is fake: p f / (p f + (1 - p) (1 - r)) with f fakes and r reals called "
        "right and a share p of fakes; likewise of those called real. Their intervals join those of f and r."
    ),
    "Degradations": (
        "Applied to the whole image before patch selection; the threshold stays that of clean images. JPEG and WebP as Pillow "
        "writes them, blur a Gaussian with sigma in pixels, size by both sides, social: size x 0.75, JPEG 85, JPEG 75."
    ),
    "File bias": (
        "A small classifier sees format, size, bytes per pixel or JPEG quality of the files and no pixel, five-fold "
        "cross-validated. Above 60 % balanced accuracy, the interval above 50, the fact is biased: a detector may learn it too."
    ),
    "Published": (
        "As printed, in the papers' tables; the averages are recomputed in the package's tests, and what contradicts itself is "
        "marked ?. Their detectors were trained elsewhere: a number inside our interval is no proof, one outside no failure."
    ),
    "Cross-validated AUROC of features": (
        "A logistic regression on standardised features, trained on four fifths of the images and judged on the last fifth, "
        "five times; the mean of the five AUROCs. Both parts hold all generators."
    ),
}
CAPTIONS_ALONE = {
    "Captions alone": (
        "The same classifier on the frozen text features of BLIP's captions (the first 10,000 of each split), trained on the "
        "training split and judged on the test split. It says how much of the label the subject of a picture gives away."
    ),
}
SEMANTICS = {
    "Matched and mismatched sets": (
        "Of the test images whose features are kept. Matched: reals and fakes paired one to one so that the cosines of their "
        "captions' features are the largest in sum, and of these pairs the nearest. Mismatched: the reals lowest and the fakes "
        "highest on the first principal axis of the captions' features. Half as many of each kind as the rarer kind has."
    ),
}
SHORTCUT = {
    "Colour AUROC (colour_auroc)": (
        "Among test pictures of the same label and generator, the chance that one whose caption names a colour of the fakes "
        "scores above one with a colour of the reals, ties counting half; the mean over these groups, weighted by their pairs. "
        "50 % is blind to colour. The colour is the one that BLIP names: a caption that names none or several is left out."
    ),
    "Colour agrees, conflicts": (
        "Test pictures whose colour is one that their own label had in training, or one that the other label had; all "
        "generators at once. AUROC and balanced accuracy within each part."
    ),
}


def definitions(*, captions: bool, semantics: bool, shortcut: bool) -> dict[str, str]:
    """Return the definitions of all numbers of the page; those of a part only if the page has that part."""
    optional = ((CAPTIONS_ALONE, captions), (SEMANTICS, semantics), (SHORTCUT, shortcut))
    return DEFINITIONS | {name: words for terms, shown in optional if shown for name, words in terms.items()}
